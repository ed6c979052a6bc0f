"""Recurrent state-space model (PlaNet, arXiv 1811.04551, section 3; sizes of 1912.01603).

dreamer.nets.rssm_kinds has the models with only one of its two paths.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from dreamer.ops.distributions import diagonal_normal
from dreamer.ops.scan import static_scan
from dreamer.ops.shapes import over_leading

# mean and std [..., S] of the latent Normal, its sample stoch [..., S], and deter [..., D].
State = dict[str, tf.Tensor]


class Float32Layer(keras.layers.Layer):
    """A layer with float32 inputs and variables; `dot` alone uses the compute dtype."""

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def _weight(self, shape: tuple[int, ...], initializer: str, name: str):
        return self.add_weight(shape=shape, initializer=initializer, name=name, autocast=False)


class Linear(Float32Layer):
    """Affine map. Where the input is a concatenation, the kernel can be used in parts.

    Input shape: [..., inputs]. Output shape: float32 [..., units].
    """

    def __init__(self, inputs: int, units: int, **kwargs):
        super().__init__(**kwargs)
        self.kernel = self._weight((inputs, units), "glorot_uniform", "kernel")
        self.bias = self._weight((units,), "zeros", "bias")
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return dot(inputs, self.kernel, self.compute_dtype) + self.bias

    def parts(self, *sizes: int) -> list[tf.Tensor]:
        """The rows of the kernel for each part of the input."""
        return tf.split(tf.convert_to_tensor(self.kernel), sizes, 0)


class GRU(Float32Layer):
    """One step of Keras's GRU with reset_after, gates and state in float32.

    Input shape: [N, units] and state float32 [N, units]. Output shape: float32 [N, units].
    """

    def __init__(self, inputs: int, units: int, **kwargs):
        super().__init__(**kwargs)
        self.kernel = self._weight((inputs, 3 * units), "glorot_uniform", "kernel")
        self.recurrent = self._weight((units, 3 * units), "orthogonal", "recurrent")
        self.bias = self._weight((2, 3 * units), "zeros", "bias")
        self.built = True

    def call(self, inputs: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        bias = tf.convert_to_tensor(self.bias)
        xz, xr, xh = tf.split(dot(inputs, self.kernel, self.compute_dtype) + bias[0], 3, -1)
        hz, hr, hh = tf.split(dot(state, self.recurrent, self.compute_dtype) + bias[1], 3, -1)
        update, reset = tf.sigmoid(xz + hz), tf.sigmoid(xr + hr)
        candidate = tf.tanh(xh + reset * hh)
        return update * state + (1.0 - update) * candidate


def dot(inputs: tf.Tensor, kernel: tf.Tensor, dtype: str) -> tf.Tensor:
    """Matrix product in the compute dtype, result in float32."""
    return tf.cast(tf.cast(inputs, dtype) @ tf.cast(kernel, dtype), tf.float32)


class RSSM(Float32Layer):
    """Latent dynamics with a deterministic path (GRU) and a stochastic one (diagonal Normal).

        h_t = GRU(ELU(W [s_(t-1), a_t]), h_(t-1))     a_t being the action that leads to t
        prior      s_t ~ p(s | h_t)
        posterior  s_t ~ q(s | h_t, e_t)

    Matrix products use the compute dtype; states, gates and statistics are float32. Where
    `is_first` is set the state and the action before it are zeros.

    Args:
        actions: A.
        embed: E.
        stoch: S.
        deter: D.
        hidden: Width of the dense layers around the GRU.
        min_std: Added to the standard deviations.
    """

    def __init__(
        self,
        actions: int,
        embed: int,
        *,
        stoch: int,
        deter: int,
        hidden: int,
        min_std: float,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self._stoch, self._deter, self._hidden = stoch, deter, hidden
        self._actions, self._embed, self._min_std = actions, embed, min_std
        self._make_layers()
        self.built = True

    def _make_layers(self) -> None:
        policy, hidden = self.dtype_policy, self._hidden
        self._input = Linear(self._stoch + self._actions, hidden, dtype=policy, name="input")
        self._gru = GRU(hidden, self._deter, dtype=policy, name="gru")
        self._make_latent(self._deter)

    def _make_latent(self, path: int) -> None:
        """The layers of prior and posterior. Their input from the past is a vector [path]."""
        policy, hidden, stats = self.dtype_policy, self._hidden, 2 * self._stoch
        self._path = path
        self._prior_hidden = Linear(path, hidden, dtype=policy, name="prior_hidden")
        self._prior_stats = Linear(hidden, stats, dtype=policy, name="prior_stats")
        self._post_hidden = Linear(path + self._embed, hidden, dtype=policy, name="post_hidden")
        self._post_stats = Linear(hidden, stats, dtype=policy, name="post_stats")

    @property
    def feat_size(self) -> int:
        """F = S + D."""
        return self._stoch + self._deter

    @property
    def stoch_size(self) -> int:
        """S."""
        return self._stoch

    def initial(self, batch: int | tf.Tensor) -> State:
        """Zeros for every entry of the state."""
        zeros = tf.zeros([batch, self._stoch])
        deter = tf.zeros([batch, self._deter])
        return {"mean": zeros, "std": zeros, "stoch": zeros, "deter": deter}

    def feat(self, state: State) -> tf.Tensor:
        """Features [..., F] = concat(stoch, deter)."""
        return tf.concat([state["stoch"], state["deter"]], -1)

    def head_state(self, post: State, prior: State) -> State:
        """The state that the heads learn from: the posterior.

        The posterior has seen the timestep that the heads must predict from it. The KL to the prior
        limits how much of the timestep it may tell them.
        """
        del prior
        return post

    def head_features(self, post: State, action: tf.Tensor, is_first: tf.Tensor) -> tf.Tensor:
        """Features of the state that `head_state` chooses, found from the posteriors alone.

        Args:
            post: Posterior states of whole sequences, entries [B, T, ...].
            action, is_first: The arguments of `observe`.
        Returns:
            float32 [B, T, F], the features that heads have learnt from.
        """
        del action, is_first
        return self.feat(post)

    def dist(self, state: State):
        """The latent Normal of a state, events [S]."""
        return diagonal_normal(state["mean"], state["std"])

    def observe(
        self,
        embed: tf.Tensor,
        action: tf.Tensor,
        is_first: tf.Tensor,
        noise: tf.Tensor,
        start: State | None = None,
    ) -> tuple[State, State]:
        """Filters sequences of observations.

        Args:
            embed: [B, T, E].
            action: float32 [B, T, A], the action that led to each observation.
            is_first: bool [B, T].
            noise: float32 [B, T, S], standard Normal.
            start: State before the sequences; zeros if None.
        Returns:
            Posterior and prior states, each entry [B, T, ...]. The prior's stoch is its mean,
            because no loss needs a sample.
        """
        keep = 1.0 - tf.cast(is_first, tf.float32)[..., None]  # [B, T, 1]
        inputs = {
            "action": self._action_part(action * keep),
            "embed": self._embed_part(embed),
            "keep": keep,
            "noise": noise,
        }
        start = self.initial(tf.shape(embed)[0]) if start is None else start
        post = static_scan(self._make_filter(), start, inputs, embed.shape[1])
        return self._split(post, start, inputs)

    def imagine_step(self, state: State, action: tf.Tensor, noise: tf.Tensor) -> State:
        """One step of the prior.

        Args:
            state: Entries [N, ...].
            action: float32 [N, A], taken in `state`.
            noise: float32 [N, S], standard Normal.
        Returns:
            The next state, entries [N, ...], stoch a sample of the prior.
        """
        x = tf.nn.elu(self._input(tf.concat([state["stoch"], action], -1)))
        path, deter = self._move(x, state["deter"])
        return {**self._prior(path, noise), "deter": deter}

    def _move(self, x: tf.Tensor, deter: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The input of prior and posterior, [N, path], and the next deter [N, D]."""
        deter = self._gru(x, deter)
        return deter, deter

    def _split(self, filtered: State, start: State, inputs: State) -> tuple[State, State]:
        """Posterior and prior states from the states of the loop, entries [B, T, ...]."""
        del start, inputs
        return filtered, {**self._prior(filtered["deter"], None), "deter": filtered["deter"]}

    def _prior(self, path: tf.Tensor, noise: tf.Tensor | None) -> State:
        """The prior's mean, std and stoch from its input [..., path]."""
        x = tf.nn.elu(over_leading(self._prior_hidden, path))
        mean, std = self._mean_std(over_leading(self._prior_stats, x))
        return {"mean": mean, "std": std, "stoch": mean if noise is None else mean + std * noise}

    def _make_filter(self) -> Callable[[State, dict[str, tf.Tensor]], State]:
        """The part of a filtering step that depends on the step before it.

        The parts that depend on the action or the embedding alone are computed for all times at
        once beforehand. The prior's statistics, which the loop does not need, come afterwards.
        """
        stoch_kernel, _ = self._input.parts(self._stoch, self._actions)
        path_kernel, _ = self._post_hidden.parts(self._path, self._embed)
        dtype = self.compute_dtype

        def filter_step(state: State, x: dict[str, tf.Tensor]) -> State:
            stoch, deter = state["stoch"] * x["keep"], state["deter"] * x["keep"]
            hidden = tf.nn.elu(dot(stoch, stoch_kernel, dtype) + x["action"])
            path, deter = self._move(hidden, deter)
            hidden = tf.nn.elu(dot(path, path_kernel, dtype) + x["embed"])
            mean, std = self._mean_std(self._post_stats(hidden))
            return {"mean": mean, "std": std, "stoch": mean + std * x["noise"], "deter": deter}

        return filter_step

    def _action_part(self, action: tf.Tensor) -> tf.Tensor:
        _, kernel = self._input.parts(self._stoch, self._actions)
        return over_leading(lambda a: dot(a, kernel, self.compute_dtype) + self._input.bias, action)

    def _embed_part(self, embed: tf.Tensor) -> tf.Tensor:
        _, kernel = self._post_hidden.parts(self._path, self._embed)
        bias = self._post_hidden.bias
        return over_leading(lambda e: dot(e, kernel, self.compute_dtype) + bias, embed)

    def _mean_std(self, stats: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        mean, std = tf.split(stats, 2, -1)
        return mean, tf.nn.softplus(std) + self._min_std
