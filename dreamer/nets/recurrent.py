"""The recurrent path of the latent dynamics: affine maps, GRU cells, and what leads to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import keras
import tensorflow as tf

from dreamer.nets.layer_style import PUBLISHED, LayerStyle, NormActivation, make_norm
from dreamer.ops.affine import affine
from dreamer.ops.shapes import over_leading

# stoch [N, S], deter [N, D], prepared [N, X] -> path [N, P], deter [N, D].
Step = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
CellStep = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # [N, inputs], [N, D] -> [N, D]


class Float32Layer(keras.layers.Layer):
    """A layer with float32 inputs and variables; `affine` alone uses the compute dtype."""

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)

    def _weight(self, shape: tuple[int, ...], initializer: Any, name: str):
        return self.add_weight(shape=shape, initializer=initializer, name=name, autocast=False)


class Linear(Float32Layer):
    """Affine map. If the input is a concatenation, its parts can be multiplied one by one.

    Input shape: [..., inputs]. Output shape: float32 [..., units].
    """

    def __init__(self, inputs: int, units: int, style: LayerStyle = PUBLISHED, **kwargs: Any):
        super().__init__(**kwargs)
        self.kernel = self._weight((inputs, units), style.initializer(), "kernel")
        self.bias = self._weight((units,), "zeros", "bias")
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return affine(inputs, self.kernel, self.bias, self.compute_dtype)

    def parts(self, *sizes: int) -> list[tf.Tensor]:
        """The rows of the kernel for each part of the input."""
        return tf.split(tf.convert_to_tensor(self.kernel), sizes, 0)

    def last_part(self, x: tf.Tensor) -> tf.Tensor:
        """Returns what the input's last part `x`, [..., size], and the bias add to the output."""
        _, kernel = self.parts(self.kernel.shape[0] - x.shape[-1], x.shape[-1])
        return over_leading(lambda v: affine(v, kernel, self.bias, self.compute_dtype), x)


class Hidden(Linear):
    """Affine map, then `finish`: norm and activation of a style (ELU unless it has another)."""

    def __init__(self, inputs: int, units: int, style: LayerStyle = PUBLISHED, **kwargs: Any):
        super().__init__(inputs, units, style, **kwargs)
        self.finish = NormActivation(style, "elu", dtype="float32", name=f"{self.name}_finish")
        self.finish.build((None, units))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.finish(super().call(inputs))


class GRU(Float32Layer):
    """One step of Keras's GRU with reset_after, gates and state in float32.

    Input shape: [N, inputs] and state float32 [N, units]. Output shape: float32 [N, units].
    """

    def __init__(self, inputs: int, units: int, style: LayerStyle = PUBLISHED, **kwargs: Any):
        super().__init__(**kwargs)
        self.kernel = self._weight((inputs, 3 * units), style.initializer(), "kernel")
        self.recurrent = self._weight((units, 3 * units), "orthogonal", "recurrent")
        self.bias = self._weight((2, 3 * units), "zeros", "bias")
        self.built = True

    def call(self, inputs: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        return self.make_step()(inputs, state)

    def make_step(self) -> CellStep:
        """Returns `call`, for a loop over time."""
        ours, past = tf.unstack(tf.convert_to_tensor(self.bias))
        dtype = self.compute_dtype

        def step(inputs: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
            xz, xr, xh = tf.split(affine(inputs, self.kernel, ours, dtype), 3, -1)
            hz, hr, hh = tf.split(affine(state, self.recurrent, past, dtype), 3, -1)
            update, reset = tf.sigmoid(xz + hz), tf.sigmoid(xr + hr)
            candidate = tf.tanh(xh + reset * hh)
            return update * state + (1.0 - update) * candidate

        return step


class NormGRU(Float32Layer):
    """One step of DreamerV2's GRU (arXiv 2010.02193), whose gates pass one layer norm.

        reset, candidate, update = split(norm(W [x, h] + b))
        h' = gated((reset, candidate, update), h)

    Input shape: [N, inputs] and state float32 [N, units]. Output shape: float32 [N, units].
    """

    def __init__(self, inputs: int, units: int, style: LayerStyle = PUBLISHED, **kwargs: Any):
        super().__init__(**kwargs)
        self.kernel = self._weight((inputs + units, 3 * units), style.initializer(), "kernel")
        self.bias = self._weight((3 * units,), "zeros", "bias")
        self._norm = make_norm("layer", name=f"{self.name}_norm")
        self._norm.build((None, 3 * units))
        self.built = True

    def call(self, inputs: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        joined = tf.concat([inputs, state], -1)
        gates = self._norm(affine(joined, self.kernel, self.bias, self.compute_dtype))
        return gated(tf.split(gates, 3, -1), state)

    def make_step(self) -> CellStep:
        """Returns `call`, for a loop over time."""
        return self.call


def gated(gates: Iterable[tf.Tensor], state: tf.Tensor) -> tf.Tensor:
    """The next state of DreamerV2's and V3's GRUs.

        u = sigmoid(update - 1),   h' = u tanh(sigmoid(reset) * candidate) + (1 - u) h

    The - 1 makes states last longer at the start of training.

    Args:
        gates: reset, candidate and update before their nonlinearities, float32 [..., D] each.
        state: h, float32 [..., D].
    """
    reset, candidate, update = gates
    share = tf.sigmoid(update - 1.0)
    return share * tf.tanh(tf.sigmoid(reset) * candidate) + (1.0 - share) * state


class Transition(Protocol):
    """How the last state and the action lead to the next deter, and to what the prior reads.

    Attributes:
        deter_size: D.
        path_size: P, the width of what prior and posterior read.
    """

    deter_size: int
    path_size: int

    def __call__(
        self, stoch: tf.Tensor, action: tf.Tensor, deter: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """[N, S], [N, A], [N, D] -> path [N, P] and the next deter [N, D]."""
        raise NotImplementedError

    def prepare(self, action: tf.Tensor) -> tf.Tensor:
        """What does not depend on the state: [..., A] -> [..., X]."""
        raise NotImplementedError

    def make_step(self) -> Step:
        """Returns the rest of a step, for a loop over time."""
        raise NotImplementedError


class DenseTransition(Float32Layer):
    """path = act(W [s, a]), without a recurrent state.

    Args:
        stoch: S.
        actions: A.
        hidden: P.
        style: Of the layer.
    """

    deter_size = 0

    def __init__(self, stoch: int, actions: int, hidden: int, style: LayerStyle, **kwargs: Any):
        super().__init__(**kwargs)
        self.hidden = Hidden(stoch + actions, hidden, style, name="input", dtype=self.dtype_policy)
        self.path_size, self._stoch = hidden, stoch
        self.built = True

    def call(
        self, stoch: tf.Tensor, action: tf.Tensor, deter: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return self.hidden(tf.concat([stoch, action], -1)), deter

    def prepare(self, action: tf.Tensor) -> tf.Tensor:
        """The action's part of the layer."""
        return self.hidden.last_part(action)

    def make_step(self) -> Step:
        """Returns the rest of the layer."""
        kernel, _ = self.hidden.parts(self._stoch, self.hidden.kernel.shape[0] - self._stoch)

        def step(
            stoch: tf.Tensor, deter: tf.Tensor, prepared: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            own = affine(stoch, kernel, None, self.compute_dtype)
            return self.hidden.finish(own + prepared), deter

        return step


class GRUTransition(DenseTransition):
    """path = deter' = GRU(act(W [s, a]), deter).

    Args:
        stoch, actions, style: As DenseTransition's.
        hidden: Width of the layer before the cell.
        deter: D.
        gru: Class of the cell, GRU or NormGRU.
    """

    def __init__(
        self, stoch: int, actions: int, hidden: int, style: LayerStyle, *, deter: int,
        gru: type[GRU | NormGRU], **kwargs: Any,
    ):  # fmt: skip
        super().__init__(stoch, actions, hidden, style, **kwargs)
        self.gru = gru(hidden, deter, style, name="gru", dtype=self.dtype_policy)
        self.deter_size = self.path_size = deter

    def call(
        self, stoch: tf.Tensor, action: tf.Tensor, deter: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        x, _ = super().call(stoch, action, deter)
        return (self.gru(x, deter),) * 2

    def make_step(self) -> Step:
        """Returns the rest of the layer, and the cell."""
        before, cell = super().make_step(), self.gru.make_step()

        def step(
            stoch: tf.Tensor, deter: tf.Tensor, prepared: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            x, _ = before(stoch, deter, prepared)
            return (cell(x, deter),) * 2

        return step
