"""The RSSM without one of its two paths (PlaNet, arXiv 1811.04551, figures 2 and 4).

Every kind has the RSSM's interface, and its states have the same four entries. An entry that a
kind lacks has width zero, so code that stores or reshapes states need not know the kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from dreamer.nets.rssm import GRU, RSSM, Linear, State, dot
from dreamer.ops.shapes import flatten_leading, over_leading


class StochasticSSM(RSSM):
    """Latent dynamics with the stochastic path alone: feat = stoch, F = S, D = 0.

        x_t = ELU(W [s_(t-1), a_t])
        prior      s_t ~ p(s | x_t)
        posterior  s_t ~ q(s | x_t, e_t)

    x_t takes the place of the full model's h_t in both, so each keeps its two hidden layers. x_t is
    not a part of the state: all memory must pass through the sample. The KL is the full model's.
    PlaNet does not publish this ablation's layers; these are ours.

    Args:
        deter: Not used; all kinds take the same arguments.
        actions, embed, stoch, hidden, min_std: As RSSM's.
    """

    def __init__(self, actions: int, embed: int, *, deter: int, **kwargs):
        del deter
        super().__init__(actions, embed, deter=0, **kwargs)

    def _make_layers(self) -> None:
        policy, hidden = self.dtype_policy, self._hidden
        self._input = Linear(self._stoch + self._actions, hidden, dtype=policy, name="input")
        self._make_latent(hidden)

    def _move(self, x: tf.Tensor, deter: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return x, deter

    def _split(self, filtered: State, start: State, inputs: State) -> tuple[State, State]:
        before = tf.concat([start["stoch"][:, None], filtered["stoch"][:, :-1]], 1)
        kernel, _ = self._input.parts(self._stoch, self._actions)
        moved = over_leading(lambda s: dot(s, kernel, self.compute_dtype), before * inputs["keep"])
        prior = self._prior(tf.nn.elu(moved + inputs["action"]), None)
        return filtered, {**prior, "deter": filtered["deter"]}


class DeterministicSSM(RSSM):
    """Latent dynamics with the deterministic path alone: feat = deter, F = D, S = 0.

        prior      h_t- = GRU(ELU(W a_t), h_(t-1))
        posterior  h_t  = GRU'(ELU(W' e_t), h_t-)

    There is no stochastic latent, hence no KL. The evidence bound becomes the exact likelihood
    sum_t log p(timestep_t | h_t-) of timesteps that are predicted before they are seen. So the
    heads learn from the prior's features. From the posterior's they would learn to copy, and
    nothing would train the transition, which imagination needs. The transition is that of PlaNet's
    figure 2a; the second GRU cell, by which observations enter the state, is ours.

    Args:
        stoch, min_std: Not used; all kinds take the same arguments.
        actions, embed, deter, hidden: As RSSM's.
    """

    def __init__(self, actions: int, embed: int, *, stoch: int, **kwargs):
        del stoch
        super().__init__(actions, embed, stoch=0, **kwargs)

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
        return dict.fromkeys(("mean", "std", "stoch"), path[..., :0])

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


def make_rssm(kind: str, actions: int, embed: int, **settings: Any) -> RSSM:
    """The latent dynamics of a kind.

    Args:
        kind: "full", "stochastic_only" or "deterministic_only".
        actions, embed, settings: As RSSM's.
    Raises:
        ValueError: If there is no such kind.
    """
    if kind not in _KINDS:
        raise ValueError(f"rssm.kind should be one of {list(_KINDS)}, not {kind!r}")
    return _KINDS[kind](actions, embed, **settings)
