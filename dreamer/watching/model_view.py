"""Looks into an agent's world model: what it sees, expects and dreams."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from dreamer.agent.agent import Agent
from dreamer.nets.rssm import State

Arrays = dict[str, np.ndarray]


class ModelView:
    """What the world model of an agent says about one environment's moments.

    A moment's `state` is what `Agent.policy` returns: latent entries [1, ...], and the action
    [1, A] that was chosen there. Arrays about a state are named

    - ``decoded/<key>``: the decoder's observations, images as uint8;
    - ``reward``, ``value``: what the heads predict, [n], on the scale that they learn; there is no
      value without a value network;
    - ``probabilities``: the actor's, [n, A], if actions are one-hot.

    Each kind of call is one graph, which its first call builds.
    """

    def __init__(self, agent: Agent):
        self._agent, self._model = agent, agent.world_model
        self._look = tf.function(self._look_graph, autograph=False)
        self._dream = tf.function(self._dream_graph, autograph=False)
        self._step = tf.function(self._step_graph, autograph=False)

    def initial(self, actions: int) -> State:
        """The state before an episode's first moment, for actions [A]."""
        return {"action": tf.zeros([1, actions]), **self._model.rssm.initial(1)}

    def look(self, before: State, after: State, is_first: bool) -> Arrays:
        """Returns the arrays about a moment, without their first axis, and its ``kl``.

        The KL is that of the posterior to the prior, in nats: how much the moment surprised the
        model. A model without a stochastic path has none.

        Args:
            before: The state of the moment before.
            after: The state of this moment.
            is_first: Whether this moment begins an episode.
        """
        found = self._look(before, after, tf.constant([is_first]))
        return {key: value.numpy()[0] for key, value in found.items()}

    def dream(self, state: State, samples: int, horizon: int, number: int, sample: bool) -> Arrays:
        """Imagines what follows a moment; returns the arrays about the steps, [samples, horizon..].

        ``action`` [samples, horizon, A] led to each step: first the moment's own, then the actor's.

        Args:
            state: The moment's.
            samples: Number of dreams.
            horizon: Their steps.
            number: The noise follows from it.
            sample: Whether the actor samples; else it takes its mode.
        """
        found = self._dream(state, samples, horizon, _seed(number), sample)
        return {key: value.numpy() for key, value in found.items()}

    def enter(self, state: State, samples: int) -> State:
        """Returns the latent states [samples, ...] that dreams from a moment begin with."""
        latent = {k: v for k, v in state.items() if k != "action"}
        return {k: tf.repeat(v, samples, 0) for k, v in latent.items()}

    def dream_step(
        self, latent: State, action: np.ndarray | None, number: int, sample: bool
    ) -> tuple[Arrays, State]:
        """Imagines one step; returns the arrays about it, and the next latent states.

        Args:
            latent: Entries [n, ...].
            action: [A], for all n; None: the actor's.
            number, sample: As `dream`'s.
        """
        given = None if action is None else tf.constant(action[None], tf.float32)
        found, latent = self._step(latent, given, _seed(number), sample)
        return {key: value.numpy() for key, value in found.items()}, latent

    # ------------------------------------------------------------------ graphs

    def _look_graph(self, before: State, after: State, is_first: tf.Tensor) -> State:
        rssm, keep = self._model.rssm, 1.0 - tf.cast(is_first, tf.float32)[:, None]
        past = {k: v * keep for k, v in before.items()}
        post = {k: v for k, v in after.items() if k != "action"}
        prior = rssm.imagine_step(past, past.pop("action"), tf.zeros([1, rssm.stoch_size]))
        found = self._judge(rssm.feat(rssm.head_state(post, prior)))
        if rssm.stoch_size:
            found["kl"] = tfp.distributions.kl_divergence(rssm.dist(post), rssm.dist(prior))
        return found | self._probabilities(rssm.feat(post))

    def _dream_graph(
        self, state: State, samples: int, horizon: int, seed: tf.Tensor, sample: bool
    ) -> State:
        rssm, first = self._model.rssm, tf.repeat(state["action"], samples, 0)

        def step(t, latent, feats, actions):
            seeds = tf.unstack(
                tf.random.split(tf.random.experimental.stateless_fold_in(seed, t), 2), 2
            )
            action = tf.where(t == 0, first, self._agent.choose(latent, seeds[0], sample))
            noise = tf.random.stateless_normal([samples, rssm.stoch_size], seeds[1])
            latent = rssm.imagine_step(latent, action, noise)
            return t + 1, latent, feats.write(t, rssm.feat(latent)), actions.write(t, action)

        empty = [tf.TensorArray(tf.float32, horizon) for _ in range(2)]
        _, _, feats, actions = tf.while_loop(
            lambda t, *_: t < horizon, step, (0, self.enter(state, samples), *empty)
        )
        feat = tf.ensure_shape(feats.stack(), [horizon, samples, rssm.feat_size])
        flat = tf.reshape(tf.transpose(feat, [1, 0, 2]), [samples * horizon, rssm.feat_size])
        found = self._judge(flat) | self._probabilities(flat)
        found = {k: tf.reshape(v, [samples, horizon, *v.shape[1:]]) for k, v in found.items()}
        return found | {"action": tf.transpose(actions.stack(), [1, 0, 2])}

    def _step_graph(
        self, latent: State, action: tf.Tensor | None, seed: tf.Tensor, sample: bool
    ) -> tuple[State, State]:
        rssm, n = self._model.rssm, latent["deter"].shape[0]
        seeds = tf.unstack(tf.random.split(seed, 2), 2)
        if action is None:
            action = self._agent.choose(latent, seeds[0], sample)
        else:
            action = tf.repeat(action, n, 0)
        noise = tf.random.stateless_normal([n, rssm.stoch_size], seeds[1])
        latent = rssm.imagine_step(latent, action, noise)
        feat = rssm.feat(latent)
        return self._judge(feat) | self._probabilities(feat) | {"action": action}, latent

    def _judge(self, feat: tf.Tensor) -> State:
        """What the decoder and the heads predict from features [N, F]."""
        model, value = self._model, self._agent.value
        found = {"reward": model.reward(feat)}
        for key, mean in model.decoder(feat).items():
            shown = model.scaling.unscaled(key, mean)
            if len(model.targets[key]) == 3:
                shown = tf.cast(tf.round(tf.clip_by_value(mean + 0.5, 0.0, 1.0) * 255.0), tf.uint8)
            found[f"decoded/{key}"] = shown
        return found if value is None else {**found, "value": value(feat)}

    def _probabilities(self, feat: tf.Tensor) -> State:
        actor = self._agent.actor
        if actor is None or not hasattr(dist := actor.dist(feat), "probabilities"):
            return {}
        return {"probabilities": dist.probabilities()}

    def learnt_reward(self, reward: float) -> float:
        """The environment's reward on the scale that the reward head learns."""
        return float(self._model.reward.target(tf.constant(reward, tf.float32)))

    def targets(self) -> Mapping[str, tuple[int, ...]]:
        """The shapes of the observations that the model decodes."""
        return self._model.targets


def _seed(number: int) -> tf.Tensor:
    return tf.constant([number, 0], tf.int32)
