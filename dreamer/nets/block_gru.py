"""DreamerV3's recurrent path: a GRU with block-diagonal weights (arXiv 2301.04104)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from dreamer.nets.layer_style import LayerStyle, NormActivation
from dreamer.nets.recurrent import Float32Layer, Hidden, Step, gated
from dreamer.ops.affine import affine
from dreamer.ops.shapes import over_leading


class BlockGRU(Float32Layer):
    """path = deter' = GRU(stoch, action, deter), where deter is G groups that mix little.

    With h_g the g-th group of deter, and act a layer's norm and activation:

        x = [act(W_h h), act(W_s s), act(W_a a)]
        y = act([.., V_g [h_g, x], ..])
        reset_g, candidate_g, update_g = split(U_g y_g)
        h' = gated((reset, candidate, update), h)

    Biases are left out here. The norm of y is over all groups. V_g and U_g make the weights linear
    in D^2 / G. x, by which groups learn of each other, has a width that does not grow with D.

    Args:
        stoch: S.
        actions: A.
        hidden: Width of each of the three layers of x.
        style: Of all layers.
        deter: D, a multiple of `blocks`.
        blocks: G.
    """

    def __init__(
        self, stoch: int, actions: int, hidden: int, style: LayerStyle, *, deter: int, blocks: int,
        **kwargs: Any,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.deter_size = self.path_size = deter
        self._blocks, self._block, self._hidden_units = blocks, deter // blocks, hidden
        policy = self.dtype_policy
        self._from_deter = Hidden(deter, hidden, style, dtype=policy, name="from_deter")
        self._from_stoch = Hidden(stoch, hidden, style, dtype=policy, name="from_stoch")
        self._from_action = Hidden(actions, hidden, style, dtype=policy, name="from_action")
        start = style.initializer(1.0, inputs=(1,), outputs=(2,))
        shape = (blocks, self._block + 3 * hidden, self._block)
        self._kernel = self._weight(shape, start, "hidden_kernel")
        self._bias = self._weight((deter,), "zeros", "hidden_bias")
        self._finish = NormActivation(style, "elu", dtype="float32", name="hidden_finish")
        self._finish.build((None, deter))
        start = style.initializer(1.0, inputs=(1,), outputs=(2,))
        shape = (blocks, self._block, 3 * self._block)
        self._gates = self._weight(shape, start, "gates_kernel")
        self._gates_bias = self._weight((blocks, 3 * self._block), "zeros", "gates_bias")
        self.built = True

    def call(
        self, stoch: tf.Tensor, action: tf.Tensor, deter: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return self.make_step()(stoch, deter, self.prepare(action))

    def prepare(self, action: tf.Tensor) -> tf.Tensor:
        """The action's part of the hidden layer, and the bias: [..., A] -> [..., D]."""
        *_, kernel = self._kernels()

        def prepared(rows: tf.Tensor) -> tf.Tensor:
            return affine(self._from_action(rows), kernel, self._bias, self.compute_dtype)

        return over_leading(prepared, action)

    def make_step(self) -> Step:
        """Returns the rest of the step."""
        own, shared, _ = self._kernels()
        gates = tf.convert_to_tensor(self._gates)

        def step(
            stoch: tf.Tensor, deter: tf.Tensor, prepared: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            x = tf.concat([self._from_deter(deter), self._from_stoch(stoch)], -1)
            y = self._by_block(deter, own) + affine(x, shared, None, self.compute_dtype) + prepared
            raw = self._by_block(self._finish(y), gates)
            raw = tf.reshape(raw, [-1, self._blocks, 3 * self._block]) + self._gates_bias
            each = (tf.reshape(x, [-1, self.deter_size]) for x in tf.split(raw, 3, -1))
            return (gated(each, deter),) * 2

        return step

    def _kernels(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The hidden layer's weights on the own group, on deter and stoch, and on the action.

        The last two are the same input for all groups, so they are one matrix for all groups,
        [.., D], which is faster than one product a group.
        """
        kernel = tf.convert_to_tensor(self._kernel)
        sizes = self._block, 2 * self._hidden_units, self._hidden_units
        own, *others = tf.split(kernel, sizes, 1)
        joined = (tf.reshape(tf.transpose(x, [1, 0, 2]), [-1, self.deter_size]) for x in others)
        return own, *joined

    def _by_block(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Block-diagonal product: [N, D], [G, D / G, M] -> float32 [N, G M]."""
        groups = tf.transpose(tf.reshape(x, [-1, self._blocks, self._block]), [1, 0, 2])
        product = tf.transpose(affine(groups, kernel, None, self.compute_dtype), [1, 0, 2])
        return tf.reshape(product, [-1, self._blocks * kernel.shape[-1]])
