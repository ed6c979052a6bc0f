"""Recurrent state-space model (PlaNet, arXiv 1811.04551, section 3; sizes of 1912.01603).

There are also models with only one of its two paths (PlaNet, figures 2 and 4). All kinds have the
RSSM's interface, and states with the same entries. An entry that a kind lacks has width zero, so
code that stores or reshapes states need not know the kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from dreamer.errors import UserError
from dreamer.nets.latents import CategoricalLatent, Latent, NormalLatent, State
from dreamer.ops.shapes import flatten_leading, over_leading


class Float32Layer(keras.layers.Layer):
    """A layer with float32 inputs and variables; `dot` alone uses the compute dtype."""

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def _weight(self, shape: tuple[int, ...], initializer: str, name: str):
        return self.add_weight(shape=shape, initializer=initializer, name=name, autocast=False)


class Linear(Float32Layer):
    """Affine map. If the input is a concatenation, its parts can be multiplied one by one.

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

    def last_part(self, x: tf.Tensor) -> tf.Tensor:
        """Returns what the input's last part `x`, [..., size], and the bias add to the output."""
        _, kernel = self.parts(self.kernel.shape[0] - x.shape[-1], x.shape[-1])
        return over_leading(lambda v: dot(v, kernel, self.compute_dtype) + self.bias, x)


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
    """Latent dynamics with a deterministic path (GRU) and a stochastic one (`Latent`).

        h_t = GRU(ELU(W [s_(t-1), a_t]), h_(t-1))     a_t being the action that leads to t
        prior      s_t ~ p(s | h_t)
        posterior  s_t ~ q(s | h_t, e_t)

    Matrix products use the compute dtype; states, gates and statistics are float32. Where
    `is_first` is set the state and the action before it are zeros.

    Args:
        actions: A.
        embed: E.
        latent: The stochastic state's distribution.
        deter: D.
        hidden: Width of the dense layers around the GRU.

    Attributes:
        latent: As above.
        stoch_size: S.
        feat_size: F = S + D.
    """

    def __init__(
        self, actions: int, embed: int, *, latent: Latent, deter: int, hidden: int, **kwargs
    ):
        super().__init__(**kwargs)
        self.latent, self.stoch_size, self.feat_size = latent, latent.size, latent.size + deter
        self._deter, self._hidden, self._actions, self._embed = deter, hidden, actions, embed
        self._make_layers()
        self.built = True

    def _make_layers(self) -> None:
        policy, hidden = self.dtype_policy, self._hidden
        self._input = Linear(self.stoch_size + self._actions, hidden, dtype=policy, name="input")
        self._gru = GRU(hidden, self._deter, dtype=policy, name="gru")
        self._make_latent(self._deter)

    def _make_latent(self, path: int) -> None:
        """Makes the layers of prior and posterior, whose input from the past is [..., path]."""
        policy, hidden, stats = self.dtype_policy, self._hidden, self.latent.outputs
        self._path = path
        self._prior_hidden = Linear(path, hidden, dtype=policy, name="prior_hidden")
        self._prior_stats = Linear(hidden, stats, dtype=policy, name="prior_stats")
        self._post_hidden = Linear(path + self._embed, hidden, dtype=policy, name="post_hidden")
        self._post_stats = Linear(hidden, stats, dtype=policy, name="post_stats")

    def initial(self, batch: int) -> State:
        """Zeros for every entry of the state, [batch, ...]."""
        zeros = tf.zeros([batch, self.stoch_size])
        deter = tf.zeros([batch, self._deter])
        return {**dict.fromkeys((*self.latent.keys, "stoch"), zeros), "deter": deter}

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
        """Features [B, T, F] of the state that `head_state` chooses, from the posteriors alone.

        The arguments are those of whole sequences, as `observe` takes and returns them.
        """
        del action, is_first
        return self.feat(post)

    def dist(self, state: State):
        """The distribution of a state's stoch, batch shape [...]."""
        return self.latent.dist(state)

    def observe(
        self, embed: tf.Tensor, action: tf.Tensor, is_first: tf.Tensor, noise: tf.Tensor,
        start: State | None = None,
    ) -> tuple[State, State]:  # fmt: skip
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
            # These do not depend on the state, so they are computed for all times at once.
            "action": self._input.last_part(action * keep),
            "embed": self._post_hidden.last_part(embed),
            "keep": keep,
            "noise": noise,
        }
        start = self.initial(embed.shape[0]) if start is None else start
        # Unrolled, because T is small and fixed; a tf.while_loop would keep every intermediate in a
        # TensorList, which costs more than the small matrix products in between.
        times = {k: tf.unstack(x, num=embed.shape[1], axis=1) for k, x in inputs.items()}
        filter_step, state, states = self._make_filter(), start, []
        for t in range(embed.shape[1]):
            state = filter_step(state, {k: x[t] for k, x in times.items()})
            states.append(state)
        post = {k: tf.stack([state[k] for state in states], axis=1) for k in state}
        return self._split(post, start, inputs)

    def imagine_step(self, state: State, action: tf.Tensor, noise: tf.Tensor) -> State:
        """The next state, entries [N, ...], by one step of the prior; stoch is a sample.

        Args:
            state: Entries [N, ...].
            action: float32 [N, A], taken in `state`.
            noise: float32 [N, S], standard Normal.
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
        """The prior's parameters and stoch, its mean without noise; from its input [..., path]."""
        x = tf.nn.elu(over_leading(self._prior_hidden, path))
        prior, latent = self.latent.parameters(over_leading(self._prior_stats, x)), self.latent
        stoch = latent.mean(prior) if noise is None else latent.sample(prior, noise)
        return {**prior, "stoch": stoch}

    def _make_filter(self) -> Callable[[State, dict[str, tf.Tensor]], State]:
        """Returns the part of a filtering step that depends on the step before.

        The prior's statistics, which the loop does not need, come afterwards.
        """
        stoch_kernel, _ = self._input.parts(self.stoch_size, self._actions)
        path_kernel, _ = self._post_hidden.parts(self._path, self._embed)
        dtype = self.compute_dtype

        def filter_step(state: State, x: dict[str, tf.Tensor]) -> State:
            stoch, deter = state["stoch"] * x["keep"], state["deter"] * x["keep"]
            hidden = tf.nn.elu(dot(stoch, stoch_kernel, dtype) + x["action"])
            path, deter = self._move(hidden, deter)
            hidden = tf.nn.elu(dot(path, path_kernel, dtype) + x["embed"])
            post = self.latent.parameters(self._post_stats(hidden))
            return {**post, "stoch": self.latent.sample(post, x["noise"]), "deter": deter}

        return filter_step


class StochasticSSM(RSSM):
    """Latent dynamics with the stochastic path alone: feat = stoch, F = S, D = 0.

        x_t = ELU(W [s_(t-1), a_t])
        prior      s_t ~ p(s | x_t)
        posterior  s_t ~ q(s | x_t, e_t)

    x_t takes the place of the full model's h_t in both, so each keeps its two hidden layers. x_t is
    not a part of the state: all memory must pass through the sample. The KL is the full model's.
    PlaNet does not publish this ablation's layers; these are ours. deter is not used.
    """

    def __init__(self, actions: int, embed: int, *, deter: int, **kwargs):
        del deter
        super().__init__(actions, embed, deter=0, **kwargs)

    def _make_layers(self) -> None:
        policy, hidden = self.dtype_policy, self._hidden
        self._input = Linear(self.stoch_size + self._actions, hidden, dtype=policy, name="input")
        self._make_latent(hidden)

    def _move(self, x: tf.Tensor, deter: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return x, deter

    def _split(self, filtered: State, start: State, inputs: State) -> tuple[State, State]:
        before = tf.concat([start["stoch"][:, None], filtered["stoch"][:, :-1]], 1)
        kernel, _ = self._input.parts(self.stoch_size, self._actions)
        moved = over_leading(lambda s: dot(s, kernel, self.compute_dtype), before * inputs["keep"])
        prior = self._prior(tf.nn.elu(moved + inputs["action"]), None)
        return filtered, {**prior, "deter": filtered["deter"]}


class DeterministicSSM(RSSM):
    """Latent dynamics with the deterministic path alone: feat = deter, F = D, S = 0.

        prior      h_t- = GRU(ELU(W a_t), h_(t-1))
        posterior  h_t  = GRU'(ELU(W' e_t), h_t-)

    There is no stochastic latent, hence no KL. The evidence bound becomes the exact likelihood
    sum_t log p(timestep_t | h_t-) of timesteps that are predicted before they are seen. So the
    heads learn from the prior's features. From the posterior's features they would learn to
    copy, and nothing would train the transition, which imagination needs. The transition is that of
    PlaNet's figure 2a; the second GRU cell, which takes in observations, is ours. The latent has
    size 0.
    """

    def head_state(self, post: State, prior: State) -> State:
        """The prior, which has not seen the timestep; see the class."""
        del post
        return prior

    def head_features(self, post: State, action: tf.Tensor, is_first: tf.Tensor) -> tf.Tensor:
        """Features of the prior, one step after the posterior of the timestep before."""
        keep = 1.0 - tf.cast(is_first, tf.float32)[..., None]  # [B, T, 1]
        before = {k: tf.pad(v[:, :-1], [[0, 0], [1, 0], [0, 0]]) * keep for k, v in post.items()}
        flat = {k: flatten_leading(v) for k, v in before.items()}
        prior = self.imagine_step(flat, flatten_leading(action * keep), flat["stoch"])
        return tf.reshape(self.feat(prior), [*action.shape[:2], self.feat_size])

    def _make_layers(self) -> None:
        policy, hidden = self.dtype_policy, self._hidden
        self._input = Linear(self._actions, hidden, dtype=policy, name="input")
        self._gru = GRU(hidden, self._deter, dtype=policy, name="gru")
        self._post_hidden = Linear(self._embed, hidden, dtype=policy, name="post_hidden")
        self._post_gru = GRU(hidden, self._deter, dtype=policy, name="post_gru")
        self._path = 0

    def _prior(self, path: tf.Tensor, noise: tf.Tensor | None) -> State:
        del noise
        return dict.fromkeys((*self.latent.keys, "stoch"), path[..., :0])

    def _make_filter(self) -> Callable[[State, dict[str, tf.Tensor]], State]:
        def filter_step(state: State, x: dict[str, tf.Tensor]) -> State:
            before = self._gru(tf.nn.elu(x["action"]), state["deter"] * x["keep"])
            after = self._post_gru(tf.nn.elu(x["embed"]), before)
            return {"deter": after, "before": before}

        return filter_step

    def _split(self, filtered: State, start: State, inputs: State) -> tuple[State, State]:
        post, prior = filtered["deter"], filtered["before"]
        none = self._prior(post, None)
        return {**none, "deter": post}, {**none, "deter": prior}


_KINDS = {
    "full": RSSM,
    "stochastic_only": StochasticSSM,
    "deterministic_only": DeterministicSSM,
}


def make_rssm(
    kind: str, *, stoch: int, classes: int, min_std: float, unimix: float, **settings: Any
) -> RSSM:
    """The latent dynamics of a kind: "full", "stochastic_only" or "deterministic_only".

    Args:
        kind: As above.
        stoch: Size of a Normal latent, or the number of categorical variables.
        classes: Categories of each variable; 0 for a Normal.
        min_std: Of a Normal.
        unimix: Share of the uniform distribution in categories.
        settings: RSSM's other arguments.
    Raises:
        UserError: There is one class, or there are classes without a stochastic state.
    """
    if classes and (classes < 2 or kind == "deterministic_only"):
        reason = "a choice needs 2 or more"
        if kind == "deterministic_only":
            reason = "rssm.kind deterministic_only has no stochastic state"
        raise UserError(f"rssm.classes is {classes}, but {reason}; leave it at 0 for a normal")
    latent: Latent = NormalLatent(0 if kind == "deterministic_only" else stoch, min_std)
    if classes:
        latent = CategoricalLatent(stoch, classes, unimix)
    return _KINDS[kind](latent=latent, **settings)
