"""Soft actor-critic on the features of Dreamer's world model: learning without imagination.

The world model learns as Dreamer's does. Actor and critics learn from the features of the real,
replayed sequences, by the soft actor-critic (arXiv 1812.05905) with Retrace(lambda) targets (arXiv
1606.02647). A comparison with Dreamer at horizons 1 and 15 shows what imagination is worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from dreamer.agent.agent import Agent
from dreamer.agent.behavior import Behavior
from dreamer.agent.exploration import Exploration
from dreamer.agent.learner import Learner, Objective
from dreamer.agent.networks import Networks, make_actor, make_optimizers
from dreamer.agent.policy import Choose, Policy
from dreamer.agent.precision import choose_jit, choose_precision
from dreamer.agent.world_model import Tensors, WorldModel, make_world_model
from dreamer.config.config import Config
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.nets.actor import Actor
from dreamer.nets.layer_style import PUBLISHED, LayerStyle
from dreamer.nets.layers import MLP
from dreamer.nets.rssm import State
from dreamer.ops.optimizers import Optimizer
from dreamer.ops.replicas import follow
from dreamer.ops.seeds import Purpose, make_seeds
from dreamer.ops.shapes import check_shape, flatten_leading, over_leading


class TwinQ(keras.layers.Layer):
    """Two critics; the lesser of their values counts (arXiv 1802.09477).

    Args:
        layers, units, style: Hidden layers of each, their width and style.

    Input shape: float32 [N, F + A]. Output shape: float32 [2, N].
    """

    def __init__(self, *, layers: int, units: int, style: LayerStyle = PUBLISHED, **kwargs):
        super().__init__(**kwargs)
        self._members = [
            MLP(layers, units, 1, style=style, dtype=self.dtype_policy, name=f"q{i}")
            for i in range(2)
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
    """The weight of the policy's entropy, learnt so that the entropy stays near its target."""

    def __init__(self, initial: float, **kwargs):
        super().__init__(**kwargs)
        self._initial = initial

    def build(self, input_shape=None):
        start = keras.initializers.Constant(math.log(self._initial))
        self.log = self.add_weight(shape=(), initializer=start, name="log")
        self.built = True

    def value(self) -> tf.Tensor:
        """Returns the weight, exp of the variable, float32 []."""
        return tf.exp(tf.convert_to_tensor(self.log))


@dataclass(frozen=True, kw_only=True)
class SACNetworks(Networks):
    """Dreamer's networks without a value network, and this agent's own."""

    actor: Actor
    critic: TwinQ
    target: TwinQ  # a copy of the critics that follows them
    replayed: Actor  # the policy that the replay's actions seem to come from
    temperature: Temperature  # the weight of the policy's entropy


class SACLearner(Learner):
    """Trains world model, critics, actor, temperature, and the model of the replay's policy.

    With f_t the posterior's features without gradient, a_t the action taken in f_t, a' ~ pi(f_t):

        v_t = min Q'(f_t, a') - alpha log pi(a'|f_t)
        critic loss      = mean over both of (Q(f_t, a_t) - G_t)^2 / 2,   G by Retrace from Q' and v
        actor loss       = mean alpha log pi(a'|f_t) - min Q(f_t, a')
        temperature loss = - mean log alpha (log pi(a'|f_t) + target entropy)
        replayed loss    = - mean log mu(a_t|f_t)

    Q' follows Q. Episodes hold no probabilities of their actions, and features change as the model
    learns. Therefore the denominator of Retrace's ratio is mu, a policy fitted to the replay.
    """

    networks: SACNetworks

    def __init__(
        self, networks: SACNetworks, optimizers: Mapping[str, Optimizer], sac: Any, seed: int
    ):
        behavior = Behavior(sac.gamma, sac.lambda_)
        super().__init__(networks, optimizers, behavior, seed=seed, horizon=0)
        self._rate = sac.target_rate
        self._target_entropy = -sac.entropy * networks.actor.actions

    def update(
        self, batch: Tensors, number: tf.Tensor, exploring: bool, behaving: bool = True
    ) -> Tensors:
        """Trains every network once, as `Learner.update`; then moves the target critics."""
        metrics = super().update(batch, number, exploring, behaving)
        follow(self._rate, self.networks.critic.variables, self.networks.target.variables)
        return metrics

    def objectives(
        self, post: State, batch: Tensors, number: tf.Tensor, exploring: bool
    ) -> list[Objective]:
        """The losses besides the world model's."""
        feat = tf.stop_gradient(self.networks.model.rssm.feat(post))
        return [lambda: self.losses(feat, batch, number)]

    def losses(
        self, feat: tf.Tensor, batch: Tensors, number: tf.Tensor
    ) -> tuple[Tensors, Tensors]:
        """Losses by network, and metrics.

        Args:
            feat: float32 [B, T, F], without gradient.
            batch: Tensors [B, T, ...].
            number: int32, number of this update.
        """
        actor, critic = self.networks.actor, self.networks.critic
        alpha = tf.stop_gradient(self.networks.temperature.value())
        taken = batch["action"][:, 1:]  # a_0..a_(T-2)
        seed = make_seeds(self._seed, Purpose.ACTIONS, number)[0]
        noise = tf.random.stateless_normal(batch["action"].shape, seed)
        action, log_prob = actor.dist(flatten_leading(feat)).from_noise(flatten_leading(noise))
        action, log_prob = tf.reshape(action, noise.shape), tf.reshape(log_prob, feat.shape[:2])
        target, weight, mu = self._targets(feat, batch, action, log_prob, alpha)
        scale = weight / tf.maximum(tf.reduce_sum(weight), 1.0)
        inputs = flatten_leading(tf.concat([feat[:, :-1], taken], -1))
        error = tf.reshape(critic(inputs), [2, *target.shape]) - target
        value = critic.least(feat, action)
        surprise = tf.stop_gradient(log_prob) + self._target_entropy
        losses = {
            "critic": 0.5 * tf.reduce_sum(scale * tf.reduce_mean(tf.square(error), 0)),
            "actor": tf.reduce_mean(alpha * log_prob - value),
            "temperature": -tf.reduce_mean(self.networks.temperature.log * surprise),
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
        value = self.networks.target.least(feat, action) - alpha * log_prob
        q = self.networks.target.least(feat[:, :-1], taken)
        flat, actions = flatten_leading(feat[:, :-1]), flatten_leading(taken)
        pi = self.networks.actor.dist(flat).log_prob(actions)
        mu = tf.reshape(self.networks.replayed.dist(flat).log_prob(actions), q.shape)
        ratio = tf.exp(tf.minimum(tf.reshape(pi, q.shape) - mu, 0.0))
        reward = self.networks.model.reward.target(batch["reward"])
        pcont, trace = self.behavior.gamma * batch["cont"], self.behavior.lambda_ * ratio
        target, weight = retrace(reward, pcont, batch["is_first"], q, value, trace)
        return tf.stop_gradient(target), weight, mu


def retrace(
    reward: tf.Tensor, pcont: tf.Tensor, is_first: tf.Tensor, q: tf.Tensor, value: tf.Tensor,
    trace: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:  # fmt: skip
    """Returns the targets of Q(x_t, a_t) along replayed sequences (Retrace, arXiv 1606.02647).

    a_t is the action taken in x_t, which timestep t + 1 holds.

        G_t = r_(t+1) + pcont_(t+1) (v_(t+1) + c_(t+1) (G_(t+1) - q_(t+1))),   t = T-2 .. 0
        c_(T-1) = 0, and c_t = 0 if timestep t is its episode's last

    with v_t = E over pi of Q(x_t, .), q_t = Q(x_t, a_t), and otherwise
    c_t = lambda min(1, pi(a_t|x_t) / mu(a_t|x_t)). lambda = 0 gives one-step targets. On-policy,
    with lambda = 1 and q_t = v_t, this is the return up to the end of the sequence, closed by v.
    At a terminal pcont is 0; at a time limit it is not, and v of the last timestep closes the sum.

    Args:
        reward: float32 [B, T], r_t received on arriving at timestep t.
        pcont: float32 [B, T], gamma * cont.
        is_first: bool [B, T]; the timestep before a first one is its episode's last.
        q: float32 [B, T-1], q_0..q_(T-2).
        value: float32 [B, T].
        trace: float32 [B, T-1], lambda min(1, pi / mu) of a_0..a_(T-2).
    Returns:
        float32 [B, T-1] targets, and their weights: 0 if timestep t is an episode's last, else 1.
    """
    check_shape("reward", reward, (None, None))
    b, length = reward.shape
    for name, tensor in (("pcont", pcont), ("is_first", is_first), ("value", value)):
        check_shape(name, tensor, (b, length))
    for name, tensor in (("q", q), ("trace", trace)):
        check_shape(name, tensor, (b, length - 1))
    going = 1.0 - tf.cast(is_first[:, 1:], tf.float32)  # timestep t + 1 follows timestep t
    carried, targets = tf.zeros_like(reward[:, 0]), []  # c_(t+1) (G_(t+1) - q_(t+1))
    for t in reversed(range(length - 1)):
        target = reward[:, t + 1] + pcont[:, t + 1] * (value[:, t + 1] + carried)
        carried = going[:, t] * trace[:, t] * (target - q[:, t])
        targets.append(target)
    return tf.stack(targets[::-1], 1), going


def by_mean(networks: SACNetworks) -> Choose:
    """Chooses samples of the actor in training, else tanh of its normal's mean, as in SAC.

    Dreamer takes the density's mode. SAC keeps its policy wide, and a wide policy has its mode at
    the ends of the range.
    """

    def choose(latent: State, seed: tf.Tensor, training: bool) -> tf.Tensor:
        shape = [latent["deter"].shape[0], networks.actor.actions]
        noise = tf.random.stateless_normal(shape, seed) if training else tf.zeros(shape)
        return networks.actor.dist(networks.model.rssm.feat(latent)).from_noise(noise)[0]

    return choose


def make(config: Config, obs_space: Mapping[str, Space], act_space: Space) -> Agent:
    """Makes the agent of a config; UserError if actions are one-hot or observations do not fit."""
    if act_space.discrete:
        raise UserError("latent_sac takes continuous actions, but this task's are one-hot")
    precision, seed, sac = choose_precision(config.precision), config.seed, config.sac
    sections, optimizer = config.agent_sections(), config.section("optimizer")
    model = make_world_model(
        obs_space, act_space, sections, gamma=sac.gamma, precision=precision, seed=seed
    )
    networks = make_networks(config, model, act_space)
    optimizers = make_optimizers(
        networks, precision == "float16", **optimizer, critic=optimizer["value_lr"],
        replayed=optimizer["actor_lr"], temperature=sac.temperature_lr,
    )  # fmt: skip
    exploration = Exploration(act_space, **config.section("explore"))
    policy = Policy(model, act_space.shape[0], by_mean(networks), exploration, seed)
    learner = SACLearner(networks, optimizers, sac, seed)
    return Agent(
        obs_space, act_space, learner, policy, seed=seed, precision=precision,
        jit=choose_jit(config.jit),
    )  # fmt: skip


def make_networks(config: Config, model: WorldModel, act_space: Space) -> SACNetworks:
    """The networks that a config describes, around a world model that is built already."""
    feat, style = model.rssm.feat_size, LayerStyle(**config.section("layers"))
    value = config.section("value") | {"style": style, "dtype": model.dtype_policy}
    own = config.section("actor") | {"style": style}
    actor = make_actor(model, act_space, "actor", own)
    target, critic = (TwinQ(**value, name=name) for name in ("target", "critic"))
    replayed = make_actor(model, act_space, "replayed", own | {"distribution": "auto"})
    temperature = Temperature(config.sac.temperature, name="temperature")
    for network in (target, critic):
        network.build((None, feat + act_space.shape[0]))
    temperature.build()
    follow(1.0, critic.variables, target.variables)
    return SACNetworks(
        model=model, actor=actor, critic=critic, target=target, replayed=replayed,
        temperature=temperature,
    )  # fmt: skip
