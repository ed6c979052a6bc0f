"""D4PG (Barth-Maron et al., arXiv 1804.08617): a deterministic actor and a distributional critic.

It runs in one process. The paper's many actors change how fast experience comes, not what is learnt
from it. Observations are states or pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from baselines.networks import NormMLP, Torso, copy_every
from baselines.off_policy import OffPolicy, Tensors
from baselines.returns import atoms, project
from dreamer.config.config import Config
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.ops.optimizers import Optimizer, apply_together
from dreamer.training.collector import Episode


class ValueRangeWarning(UserWarning):
    """Returns lie beyond the critic's atoms, where it cannot tell them apart."""


class Nets(keras.layers.Layer):
    """Torso, actor and critic.

    Actions are tanh of the actor's output. The critic takes features and an action and returns the
    logits of a distribution over the atoms. Actor and critic share the convolutions; the dense
    layer with layer normalisation that follows is each one's own.

    Args:
        shapes: Shapes of observations.
        actions: A.
        count: K, the number of atoms.
        units: Width of hidden layers.
        layers: Number of hidden layers.
        cnn_depth: Channels of the torso's first convolution.
    """

    def __init__(
        self, shapes: Mapping[str, Any], actions: int, count: int, *, units: int, layers: int,
        cnn_depth: int, **kwargs,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.torso = Torso(shapes, cnn_depth, name="torso")
        self.actor = NormMLP([units] * layers, actions, 1e-3, name="actor")
        self.critic = NormMLP([units] * layers, count, name="critic")
        self._actions = actions

    def build(self, input_shape=None):
        self.torso.build()
        self.actor.build((None, self.torso.size))
        self.critic.build((None, self.torso.size + self._actions))
        self.built = True

    def act(self, feat: tf.Tensor) -> tf.Tensor:
        """Features [N, E] -> actions [N, A] in (-1, 1)."""
        return tf.tanh(self.actor(feat))

    def logits(self, feat: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
        """Features [N, E] and actions [N, A] -> logits [N, K]."""
        return self.critic(tf.concat([feat, action], -1))


class D4PG(OffPolicy):
    """The agent.

    Z is the critic's distribution; a prime (') marks the target networks and the end of the n-step
    transition (arXiv 1804.08617, algorithm 1):

        target      = project(return + factor Z'(o', actor'(o')))
        critic loss = mean weight * cross-entropy(target, Z(o, a))
        actor loss  = - mean E[Z(o, actor(o))], differentiated by the actor alone

    The torso learns from the critic's loss alone. A transition's cross-entropy is its priority.

    Args:
        obs_space, act_space: The environment's; actions are continuous.
        d4pg: The section of configs/agents/d4pg.yaml.
        explore, batch_size, seed: See `OffPolicy`.

    Raises:
        UserError: Actions are one-hot, or observations do not fit.
    """

    metric_names = (
        *("critic_loss", "actor_loss", "value", "target", "critic_grad_norm", "actor_grad_norm"),
        *("critic_grad_finite", "actor_grad_finite", "nonfinite"),
    )

    def __init__(
        self, obs_space: Mapping[str, Space], act_space: Space, *, d4pg: Mapping[str, Any],
        explore: Mapping[str, Any], batch_size: int, seed: int,
    ):  # fmt: skip
        if act_space.discrete:
            raise UserError("d4pg takes continuous actions, but this task's are one-hot; try dqn")
        if not d4pg["v_min"] < d4pg["v_max"]:
            raise UserError(f"d4pg.v_min ({d4pg['v_min']}) must be below d4pg.v_max")
        super().__init__(
            obs_space, act_space, d4pg, explore=explore, batch_size=batch_size, seed=seed
        )
        self._gamma, self._range = d4pg["gamma"], (d4pg["v_min"], d4pg["v_max"])
        self._warned = False
        self._z = atoms(d4pg["v_min"], d4pg["v_max"], d4pg["atoms"])
        shapes, actions = self._observations.shapes, act_space.shape[0]
        sizes = {k: d4pg[k] for k in ("units", "layers", "cnn_depth")}
        self.build(lambda name: Nets(shapes, actions, d4pg["atoms"], **sizes, name=name))
        nets = self._nets
        self._groups = {
            "critic": nets.torso.trainable_variables + nets.critic.trainable_variables,
            "actor": nets.actor.trainable_variables,
        }
        self._optimizers = {
            name: Optimizer(
                variables, d4pg[f"{name}_lr"], d4pg["eps"], d4pg["clip"], False, f"{name}_adam"
            )
            for name, variables in self._groups.items()
        }

    def remember(self, episode: Episode) -> None:
        """Takes an episode in; warns once if its returns leave the range of the atoms."""
        super().remember(episode)
        low = high = following = 0.0
        for reward in episode["reward"][:0:-1].tolist():
            following = reward + self._gamma * following
            low, high = min(low, following), max(high, following)
        if not self._warned and (low < self._range[0] or high > self._range[1]):
            self._warned = True
            warnings.warn(
                f"an episode's returns go from {low:.4g} to {high:.4g}, beyond d4pg.v_min "
                f"({self._range[0]:g}) or d4pg.v_max ({self._range[1]:g}), where the critic cannot "
                "tell them apart: give the task's own range in a new run",
                ValueRangeWarning, stacklevel=2,
            )  # fmt: skip

    def greedy(self, obs: Tensors) -> tf.Tensor:
        """Returns the actor's actions [n, A]."""
        return self._nets.act(self._nets.torso(obs))

    def update_once(self, batch: Tensors, update: tf.Tensor) -> tuple[Tensors, tf.Tensor]:
        """Updates critic and actor, and every target_period the target networks."""
        nets, (obs, later) = self._nets, self.observations_of(batch)
        feat = self._target.torso(later)
        probs = tf.nn.softmax(self._target.logits(feat, self._target.act(feat)))
        target = tf.stop_gradient(project(batch["return"], batch["factor"], probs, self._z))
        with tf.GradientTape(persistent=True) as tape:
            feat = nets.torso(obs)
            logits = nets.logits(feat, batch["action"])
            entropy = tf.nn.softmax_cross_entropy_with_logits(target, logits)  # [B]
            critic_loss = tf.reduce_mean(batch["weight"] * entropy)
            feat = tf.stop_gradient(feat)
            value = self._mean(nets.logits(feat, nets.act(feat)))
            actor_loss = -tf.reduce_mean(value)
        losses = {"critic": critic_loss, "actor": actor_loss}
        gradients = {k: tape.gradient(v, self._groups[k]) for k, v in losses.items()}
        metrics = {f"{name}_loss": loss for name, loss in losses.items()}
        metrics |= apply_together(self._optimizers, gradients, losses)
        copy_every(self._period, update, nets.variables, self._target.variables)
        metrics["value"] = -actor_loss
        metrics["target"] = tf.reduce_mean(tf.linalg.matvec(target, self._z))
        return metrics, entropy

    def _mean(self, logits: tf.Tensor) -> tf.Tensor:
        return tf.linalg.matvec(tf.nn.softmax(logits), self._z)

    def variables(self) -> dict[str, Any]:
        """Returns the variables of networks, targets and optimizers, by name."""
        found = super().variables()
        for name, optimizer in self._optimizers.items():
            found |= {f"{name}/adam/{k}": v for k, v in optimizer.state.items()}
        return found


def make(config: Config, obs_space: Mapping[str, Space], act_space: Space) -> D4PG:
    """Returns the agent that a config describes."""
    return D4PG(
        obs_space, act_space, d4pg=config.section("d4pg"), explore=config.section("explore"),
        batch_size=config.train.batch_size, seed=config.seed,
    )  # fmt: skip
