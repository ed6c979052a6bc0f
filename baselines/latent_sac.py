"""Soft actor-critic on the features of Dreamer's world model: learning without imagination.

The world model learns as Dreamer's does. Actor and critics learn from the features of the real,
replayed sequences, by the soft actor-critic (arXiv 1812.05905) with Retrace(lambda) targets (arXiv
1606.02647): against Dreamer at a horizon of 1 and of 15 this says what imagination is worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from baselines.networks import follow
from baselines.returns import retrace
from dreamer.agent.agent import Agent
from dreamer.agent.learner import Learner
from dreamer.agent.networks import Parts, make_optimizers
from dreamer.agent.policy import Acting, Choose
from dreamer.agent.world_model import Tensors
from dreamer.config.config import Config
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.nets.actor import Actor
from dreamer.nets.layers import MLP
from dreamer.nets.rssm import State
from dreamer.ops.seeds import Purpose, make_seeds
from dreamer.ops.shapes import flatten_leading, over_leading

# What Dreamer's agent is told where this one has no key: it imagines nothing.
_BEHAVIOR = {"policy": "actor", "value": False, "horizon": 2}
_OF_DREAMERS_ACTOR = {"mode_samples": 1, "gradient": "dynamics", "entropy": 0.0}


class TwinQ(keras.layers.Layer):
    """Two critics, whose lesser value counts (arXiv 1802.09477).

    Args:
        layers: Hidden layers of each.
        units: Their width.

    Input shape: float32 [N, F + A]. Output shape: float32 [2, N].
    """

    def __init__(self, *, layers: int, units: int, **kwargs):
        super().__init__(**kwargs)
        self._members = [
            MLP(layers, units, 1, dtype=self.dtype_policy, name=f"q{i}") for i in range(2)
        ]

    def build(self, input_shape):
        for member in self._members:
            member.build(input_shape)
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.stack([member(inputs)[:, 0] for member in self._members])

    def least(self, feat: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
        """The lesser value at [..., F] and [..., A]: float32 [...]."""
        inputs = tf.concat([feat, action], -1)
        return over_leading(lambda x: tf.reduce_min(self(x), 0), inputs)


class Temperature(keras.layers.Layer):
    """The weight of the policy's entropy, learnt so that it keeps a target.

    Args:
        initial: The weight at the start.
    """

    def __init__(self, initial: float, **kwargs):
        super().__init__(**kwargs)
        self._initial = initial

    def build(self, input_shape=None):
        start = keras.initializers.Constant(math.log(self._initial))
        self.log = self.add_weight(shape=(), initializer=start, name="log")
        self.built = True

    def value(self) -> tf.Tensor:
        """exp of the variable, float32 []."""
        return tf.exp(tf.convert_to_tensor(self.log))


@dataclass(frozen=True)
class SACParts(Parts):
    """Dreamer's parts without a value network, and what this agent has besides.

    Attributes:
        critic: Both critics.
        replayed: The policy that the replay's actions seem to come from.
        temperature: See there.
    """

    critic: TwinQ | None = None
    replayed: Actor | None = None
    temperature: Temperature | None = None


class SACLearner(Learner):
    """Trains world model, critics, actor, temperature, and the model of the replay's policy.

    With f_t the posterior's features without gradient, a_t the action taken in f_t, a' ~ pi(f_t):

        v_t = min Q'(f_t, a') - alpha log pi(a'|f_t)
        critic loss      = mean over both of (Q(f_t, a_t) - G_t)^2 / 2,   G by Retrace from Q' and v
        actor loss       = mean alpha log pi(a'|f_t) - min Q(f_t, a')
        temperature loss = - mean log alpha (log pi(a'|f_t) + target entropy)
        replayed loss    = - mean log mu(a_t|f_t)

    Q' follows Q. Episodes hold no probabilities of their actions, and features change as the model
    learns: so Retrace's ratio has in its denominator mu, a policy fitted to the replay's actions.
    """

    def __init__(
        self, parts: SACParts, optimizers: Mapping[str, Any], target: TwinQ, *, seed: int,
        gamma: float, lambda_: float, target_entropy: float, rate: float,
    ):  # fmt: skip
        returns = {"gamma": gamma, "lambda_": lambda_}
        super().__init__(
            parts, optimizers, seed=seed, horizon=2, **returns, gradient="dynamics", entropy=0.0
        )
        self._sac, self._target = parts, target
        self._gamma, self._lambda, self._rate = gamma, lambda_, rate
        self._target_entropy = target_entropy

    def update(self, batch: Tensors, update: tf.Tensor, exploring: bool) -> Tensors:
        """Trains every part once, as `Learner.update`; then moves the target critics."""
        metrics = super().update(batch, update, exploring)
        follow(self._rate, self._sac.critic.variables, self._target.variables)
        return metrics

    def _objectives(self, post: Tensors, batch: Tensors, update: tf.Tensor, exploring: bool):
        """What is learnt on top of the model."""
        del exploring
        feat = tf.stop_gradient(self._sac.model.rssm.feat(post))
        return [lambda: self.losses(feat, batch, update)]

    def losses(
        self, feat: tf.Tensor, batch: Tensors, update: tf.Tensor
    ) -> tuple[Tensors, Tensors]:
        """Losses by part, and metrics.

        Args:
            feat: float32 [B, T, F], without gradient.
            batch: Tensors [B, T, ...].
            update: int32, number of this update.
        """
        actor, critic = self._sac.actor, self._sac.critic
        alpha = tf.stop_gradient(self._sac.temperature.value())
        taken = batch["action"][:, 1:]  # a_0..a_(T-2)
        seed = make_seeds(self._seed, Purpose.ACTIONS, update)[0]
        noise = tf.random.stateless_normal(batch["action"].shape, seed)
        shape = feat.shape[:2]
        action, log_prob = actor.dist(flatten_leading(feat)).from_noise(flatten_leading(noise))
        action = tf.reshape(action, [*shape, -1])
        log_prob = tf.reshape(log_prob, shape)
        target, weight, mu = self._targets(feat, batch, action, log_prob, alpha)
        scale = weight / tf.maximum(tf.reduce_sum(weight), 1.0)
        inputs = flatten_leading(tf.concat([feat[:, :-1], taken], -1))
        error = tf.reshape(critic(inputs), [2, *target.shape]) - target
        value = critic.least(feat, action)
        surprise = tf.stop_gradient(log_prob) + self._target_entropy
        losses = {
            "critic": 0.5 * tf.reduce_sum(scale * tf.reduce_mean(tf.square(error), 0)),
            "actor": tf.reduce_mean(alpha * log_prob - value),
            "temperature": -tf.reduce_mean(self._sac.temperature.log * surprise),
            "replayed": -tf.reduce_sum(scale * mu),
        }
        metrics = {f"{name}_loss": loss for name, loss in losses.items()}
        metrics |= {"actor_entropy": -tf.reduce_mean(log_prob), "temperature": alpha}
        metrics |= {"critic_value": tf.reduce_mean(value), "target": tf.reduce_sum(scale * target)}
        return losses, metrics

    def _targets(
        self, feat: tf.Tensor, batch: Tensors, action: tf.Tensor, log_prob: tf.Tensor,
        alpha: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:  # fmt: skip
        """Retrace targets [B, T-1] and weights, without gradient; log mu of the taken actions."""
        taken = batch["action"][:, 1:]
        value = self._target.least(feat, action) - alpha * log_prob
        q = self._target.least(feat[:, :-1], taken)
        flat, actions = flatten_leading(feat[:, :-1]), flatten_leading(taken)
        pi = self._sac.actor.dist(flat).log_prob(actions)
        mu = tf.reshape(self._sac.replayed.dist(flat).log_prob(actions), q.shape)
        ratio = tf.exp(tf.minimum(tf.reshape(pi, q.shape) - mu, 0.0))
        reward = self._sac.model.reward.target(batch["reward"])
        target, weight = retrace(
            reward, self._gamma * batch["cont"], batch["is_first"], q, value, self._lambda * ratio
        )
        return tf.stop_gradient(target), weight, mu


def by_mean(parts: Parts) -> Choose:
    """Samples of the actor while training, else the tanh of its normal's mean, as in SAC.

    Dreamer takes the density's mode, which for a wide policy is at the ends of the range; SAC's is
    kept wide.
    """

    def choose(latent: State, seed: tf.Tensor, training: bool) -> tf.Tensor:
        shape = [latent["deter"].shape[0], parts.actor.actions]
        noise = tf.random.stateless_normal(shape, seed) if training else tf.zeros(shape)
        return parts.actor.dist(parts.model.rssm.feat(latent)).from_noise(noise)[0]

    return choose


class LatentSAC(Agent):
    """Acts as Dreamer does, by an actor on filtered features; learns as SACLearner says.

    Args:
        obs_space, act_space: Of the environment; actions are continuous.
        sac: The section of configs/agents/latent_sac.yaml.
        **sections: What Dreamer's agent takes.
    Raises:
        UserError: Actions are one-hot, or observations do not fit.
    """

    def __init__(
        self, obs_space: Mapping[str, Space], act_space: Space, *, sac: Mapping[str, Any],
        **sections: Any,
    ):  # fmt: skip
        if act_space.discrete:
            raise UserError("latent_sac takes continuous actions, but this task's are one-hot")
        self._section, self._sections = dict(sac), sections
        super().__init__(obs_space, act_space, **sections)

    def _make_functions(self, actor, behavior, planner, jit: bool) -> None:
        """Puts this agent's parts, optimizers and learner in place of Dreamer's."""
        sections, sac = self._sections, self._section
        size, actions = self.world_model.rssm.feat_size, self._act_space.shape[0]
        policy = self.world_model.dtype_policy
        target, critic = (
            TwinQ(**sections["value"], dtype=policy, name=name) for name in ("target", "critic")
        )
        own = {k: v for k, v in actor.items() if k not in _OF_DREAMERS_ACTOR}
        replayed = Actor(
            actions, **{**own, "distribution": "tanh_normal"}, dtype=policy, name="replayed"
        )
        temperature = Temperature(sac["temperature"], name="temperature")
        for part, inputs in ((target, size + actions), (critic, size + actions), (replayed, size)):
            part.build((None, inputs))
        temperature.build()
        follow(1.0, critic.variables, target.variables)
        self.parts = SACParts(
            self.world_model, self.parts.actor, critic=critic, replayed=replayed,
            temperature=temperature,
        )  # fmt: skip
        rates = {
            "critic_lr": sections["optimizer"]["value_lr"],
            "replayed_lr": sections["optimizer"]["actor_lr"],
            "temperature_lr": sac["temperature_lr"],
        }
        optimizer = {**sections["optimizer"], **rates}
        self._optimizers = make_optimizers(self.parts, optimizer, self.precision == "float16")
        self._target = target
        self._learner = SACLearner(
            self.parts, self._optimizers, target, seed=self._seed, gamma=sac["gamma"],
            lambda_=sac["lambda_"], target_entropy=-sac["entropy"] * actions,
            rate=sac["target_rate"],
        )  # fmt: skip
        self.policy_calls, self._step, self._updates = 0, 0, 0
        self._update = tf.function(self._learner.update, autograph=False, jit_compile=jit or None)
        acting = Acting(self.parts, by_mean(self.parts), self._explore, self._seed)
        self._act = self._seek = tf.function(acting.step, autograph=False)

    def _variables(self) -> dict[str, Any]:
        return {**super()._variables(), **{f"target/{v.path}": v for v in self._target.variables}}


def make(config: Config, obs_space: Mapping[str, Space], act_space: Space) -> LatentSAC:
    """The agent that a config describes."""
    sections, sac = config.agent_sections(), config.section("sac")
    sections["actor"] |= _OF_DREAMERS_ACTOR
    return LatentSAC(
        obs_space, act_space, sac=sac, **sections,
        behavior={**_BEHAVIOR, "gamma": sac["gamma"], "lambda_": sac["lambda_"]},
        precision=config.precision, jit=config.jit, seed=config.seed,
    )  # fmt: skip
