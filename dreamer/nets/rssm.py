"""Recurrent state-space model (PlaNet, arXiv 1811.04551, section 3; sizes of 1912.01603).

There are also models with only one of its two paths (PlaNet, figures 2 and 4). All kinds have the
RSSM's interface, and states with the same entries. An entry that a kind lacks has width zero, so
code that stores or reshapes states need not know the kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from dreamer.config.config import check_dynamics
from dreamer.nets.block_gru import BlockGRU
from dreamer.nets.latents import CategoricalLatent, Latent, NormalLatent, State
from dreamer.nets.layer_style import PUBLISHED, LayerStyle
from dreamer.nets.recurrent import (
    GRU,
    DenseTransition,
    Float32Layer,
    GRUTransition,
    Hidden,
    Linear,
    NormGRU,
    Transition,
)
from dreamer.ops.affine import affine
from dreamer.ops.scan import scan
from dreamer.ops.shapes import flatten_leading, over_leading


class RSSM(Float32Layer):
    """Latent dynamics with a deterministic path (GRU) and a stochastic one (`Latent`).

        h_t = transition(s_(t-1), a_t, h_(t-1))     a_t being the action that leads to t
        prior      s_t ~ p(s | h_t)
        posterior  s_t ~ q(s | h_t, e_t)

    Matrix products use the compute dtype; states, gates and statistics are float32. Where
    `is_first` is set the state and the action before it are zeros.

    Args:
        embed: E.
        latent: The stochastic state's distribution.
        transition: The deterministic path.
        hidden: Width of the hidden layers of prior and posterior.
        style: Of these layers.
        prior_layers: How many of them the prior has; the posterior has one.

    Attributes:
        latent: As above.
        stoch_size: S.
        feat_size: F = S + D.
    """

    def __init__(
        self, embed: int, *, latent: Latent, transition: Transition, hidden: int,
        style: LayerStyle = PUBLISHED, prior_layers: int = 1, **kwargs,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.latent, self.stoch_size, self._deter = latent, latent.size, transition.deter_size
        self.feat_size = latent.size + transition.deter_size
        self._transition, self._hidden, self._embed = transition, hidden, embed
        self._make_layers(style, prior_layers)
        self.built = True

    def _make_layers(self, style: LayerStyle, prior_layers: int) -> None:
        """Makes the layers of prior and posterior, whose input from the past is [..., path]."""
        path, hidden, stats = self._transition.path_size, self._hidden, self.latent.outputs

        def named(kind: type, inputs: int, units: int, name: str) -> Any:
            return kind(inputs, units, style, dtype=self.dtype_policy, name=name)

        self._prior_hidden = [named(Hidden, path, hidden, "prior_hidden")]
        for i in range(1, prior_layers):
            self._prior_hidden.append(named(Hidden, hidden, hidden, f"prior_hidden{i}"))
        self._prior_stats = named(Linear, hidden, stats, "prior_stats")
        self._post_hidden = named(Hidden, path + self._embed, hidden, "post_hidden")
        self._post_stats = named(Linear, hidden, stats, "post_stats")

    def initial(self, batch: int) -> State:
        """Zeros for every entry of the state, [batch, ...]."""
        zeros = tf.zeros([batch, self.stoch_size])
        deter = tf.zeros([batch, self._deter])
        return {**dict.fromkeys((*self.latent.keys, "stoch"), zeros), "deter": deter}

    def feat(self, state: State) -> tf.Tensor:
        """Features [..., F] = concat(stoch, deter)."""
        return tf.concat([state["stoch"], state["deter"]], -1)

    def state(self, feat: tf.Tensor) -> State:
        """The state of features [..., F], without the parameters of stoch's distribution."""
        stoch, deter = tf.split(feat, [self.stoch_size, self.feat_size - self.stoch_size], -1)
        return {"stoch": stoch, "deter": deter}

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
            "action": self._transition.prepare(action * keep),
            "embed": self._post_hidden.last_part(embed),
            "keep": keep,
            "noise": noise,
        }
        start = self.initial(embed.shape[0]) if start is None else start
        filter_step = self._make_filter()

        def step(state: State, x: dict[str, tf.Tensor]) -> tuple[State, State]:
            state = filter_step(state, x)
            return state, state

        post = scan(step, start, inputs, axis=1)
        return self._split(post, start, inputs)

    def imagine_step(self, state: State, action: tf.Tensor, noise: tf.Tensor) -> State:
        """The next state, entries [N, ...], by one step of the prior; stoch is a sample.

        Args:
            state: Entries [N, ...].
            action: float32 [N, A], taken in `state`.
            noise: float32 [N, S], standard Normal.
        """
        path, deter = self._transition(state["stoch"], action, state["deter"])
        return {**self._prior(path, noise), "deter": deter}

    def _split(self, filtered: State, start: State, inputs: State) -> tuple[State, State]:
        """Posterior and prior states from the states of the loop, entries [B, T, ...]."""
        del start, inputs
        return filtered, {**self._prior(filtered["deter"], None), "deter": filtered["deter"]}

    def _prior(self, path: tf.Tensor, noise: tf.Tensor | None) -> State:
        """The prior's parameters and stoch, its mean without noise; from its input [..., path]."""
        x = path
        for layer in self._prior_hidden:
            x = over_leading(layer, x)
        prior, latent = self.latent.parameters(over_leading(self._prior_stats, x)), self.latent
        stoch = latent.mean(prior) if noise is None else latent.sample(prior, noise)
        return {**prior, "stoch": stoch}

    def _make_filter(self) -> Callable[[State, dict[str, tf.Tensor]], State]:
        """Returns the part of a filtering step that depends on the step before.

        The prior's statistics, which the loop does not need, come afterwards.
        """
        step = self._transition.make_step()
        path_kernel, _ = self._post_hidden.parts(self._transition.path_size, self._embed)

        def filter_step(state: State, x: dict[str, tf.Tensor]) -> State:
            stoch, deter = state["stoch"] * x["keep"], state["deter"] * x["keep"]
            path, deter = step(stoch, deter, x["action"])
            own = affine(path, path_kernel, None, self.compute_dtype)
            post = self.latent.parameters(
                self._post_stats(self._post_hidden.finish(own + x["embed"]))
            )
            return {**post, "stoch": self.latent.sample(post, x["noise"]), "deter": deter}

        return filter_step


class StochasticSSM(RSSM):
    """Latent dynamics with the stochastic path alone: feat = stoch, F = S, D = 0.

        x_t = ELU(W [s_(t-1), a_t])
        prior      s_t ~ p(s | x_t)
        posterior  s_t ~ q(s | x_t, e_t)

    x_t takes the place of the full model's h_t in both, so each keeps its two hidden layers. x_t is
    not a part of the state: all memory must pass through the sample. The KL is the full model's.
    PlaNet does not publish this ablation's layers; these are ours.
    """

    def _split(self, filtered: State, start: State, inputs: State) -> tuple[State, State]:
        before = tf.concat([start["stoch"][:, None], filtered["stoch"][:, :-1]], 1)
        args = before * inputs["keep"], filtered["deter"], inputs["action"]
        path, _ = self._transition.make_step()(*map(flatten_leading, args))
        prior = self._prior(tf.reshape(path, [*before.shape[:2], -1]), None)
        return filtered, {**prior, "deter": filtered["deter"]}


class DeterministicSSM(RSSM):
    """Latent dynamics with the deterministic path alone: feat = deter, F = D, S = 0.

        prior      h_t- = GRU(ELU(W a_t), h_(t-1))
        posterior  h_t  = GRU'(ELU(W' e_t), h_t-)

    There is no stochastic latent, hence no KL. The evidence bound becomes the exact likelihood
    sum_t log p(timestep_t | h_t-) of timesteps that are predicted before they are seen. So the
    heads learn from the prior's features. From the posterior's features they would learn to
    copy, and nothing would train the transition, which imagination needs. With loss.overshooting
    predictions are of several steps (`dreamer.agent.kl.features_ahead`). The transition is that of
    PlaNet's figure 2a; the second GRU cell, which takes in observations, is ours. The latent has
    size 0.
    """

    _transition: GRUTransition

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

    def _make_layers(self, style: LayerStyle, prior_layers: int) -> None:
        del prior_layers
        policy, hidden, gru = self.dtype_policy, self._hidden, type(self._transition.gru)
        self._post_hidden = Hidden(self._embed, hidden, style, dtype=policy, name="post_hidden")
        self._post_gru = gru(hidden, self._deter, style, dtype=policy, name="post_gru")

    def _prior(self, path: tf.Tensor, noise: tf.Tensor | None) -> State:
        del noise
        return dict.fromkeys((*self.latent.keys, "stoch"), path[..., :0])

    def _make_filter(self) -> Callable[[State, dict[str, tf.Tensor]], State]:
        first, posterior = self._transition, self._post_gru.make_step()
        prior = first.gru.make_step()

        def filter_step(state: State, x: dict[str, tf.Tensor]) -> State:
            before = prior(first.hidden.finish(x["action"]), state["deter"] * x["keep"])
            after = posterior(self._post_hidden.finish(x["embed"]), before)
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
    kind: str, *, actions: int, embed: int, stoch: int, classes: int, min_std: float,
    unimix: float, deter: int, hidden: int, gru_norm: bool = False, prior_layers: int = 1,
    blocks: int = 0, style: LayerStyle = PUBLISHED, **kwargs: Any,
) -> RSSM:  # fmt: skip
    """The latent dynamics of a kind: "full", "stochastic_only" or "deterministic_only".

    Args:
        kind: As above.
        actions: A.
        embed: E.
        stoch: Size of a Normal latent, or the number of categorical variables.
        classes: Categories of each variable; 0 for a Normal.
        min_std: Of a Normal.
        unimix: Share of the uniform distribution in categories.
        deter: D; not used in "stochastic_only".
        hidden: Width of all hidden layers.
        gru_norm: Whether the GRU's gates pass a layer norm.
        prior_layers: Hidden layers of the prior.
        blocks: Groups of a block-diagonal GRU; 0 for one with full matrices.
        style: Of the hidden layers.
        kwargs: Of a Keras layer.
    Raises:
        UserError: Settings do not fit each other.
    """
    own = {"kind": kind, "classes": classes, "blocks": blocks, "gru_norm": gru_norm}
    check_dynamics({**own, "deter": deter})
    latent: Latent = NormalLatent(0 if kind == "deterministic_only" else stoch, min_std)
    if classes:
        latent = CategoricalLatent(stoch, classes, unimix)
    sizes = latent.size, actions, hidden, style
    policy = kwargs.get("dtype")
    transition: Transition
    if kind == "stochastic_only":
        transition = DenseTransition(*sizes, dtype=policy)
    elif blocks:
        transition = BlockGRU(*sizes, deter=deter, blocks=blocks, dtype=policy, name="gru")
    else:
        gru = NormGRU if gru_norm else GRU
        transition = GRUTransition(*sizes, deter=deter, gru=gru, dtype=policy)
    return _KINDS[kind](
        embed, latent=latent, transition=transition, hidden=hidden, style=style,
        prior_layers=prior_layers, **kwargs,
    )  # fmt: skip
