"""D4PG (Barth-Maron et al., arXiv 1804.08617): a deterministic actor and a distributional critic.

In one process, as everything here: the paper's many actors change how fast experience comes, not
what is learnt from it. From states or pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from baselines.memory import Transitions
from baselines.networks import NormMLP, Torso, copy_every
from baselines.observations import Observations
from baselines.off_policy import OffPolicy, Tensors
from baselines.returns import atoms, project
from dreamer.config.config import Config
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.ops.optimizers import Optimizer, apply_together
from dreamer.training.collector import Episode


class ValueRangeWarning(UserWarning):
    """Returns lie beyond the critic's atoms, which cannot tell them apart there."""


class Nets(keras.layers.Layer):
    """Torso, actor and critic; one such for learning and one as its target.

    Actions are tanh of the actor's output. The critic takes features and an action and gives the
    logits of a distribution over the atoms. Images pass a dense layer with layer normalisation
    within actor and critic each, so what they share is the convolutions.

    Args:
        shapes: Of observations.
        actions: A.
        count: K, the atoms.
        units: Width of hidden layers.
        layers: How many of them.
        cnn_depth: Of the torso.
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

    With Z the critic's distribution and marks ' for the target networks and the n-step transition's
    end (arXiv 1804.08617, algorithm 1):

        target      = project(return + factor Z'(o', actor'(o')))
        critic loss = mean weight * cross-entropy(target, Z(o, a))
        actor loss  = - mean E[Z(o, actor(o))], differentiated by the actor alone

    The torso learns from the critic's loss alone. A transition's cross-entropy is its priority.

    Args:
        obs_space, act_space: Of the environment; actions are continuous.
        d4pg: The section of configs/agents/d4pg.yaml.
        explore: The section of configs/defaults.yaml: the noise of training.
        batch_size: Transitions in an update.
        seed: Of weights and noise.
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
        super().__init__(obs_space, act_space, seed)
        if act_space.discrete:
            raise UserError("d4pg takes continuous actions, but this task's are one-hot; try dqn")
        if not d4pg["v_min"] < d4pg["v_max"]:
            raise UserError(f"d4pg.v_min ({d4pg['v_min']}) must be below d4pg.v_max")
        keras.utils.set_random_seed(seed)
        self.batch_size, self.group = batch_size, d4pg["group"]
        self.explore(explore)
        self._period = d4pg["target_period"]
        self._observations = Observations(obs_space, d4pg["frames"], gray=False)
        size = act_space.shape[0]
        self.memory = Transitions(
            self._observations, size, seed=seed, n=d4pg["n_step"], beta=d4pg["beta"],
            alpha=d4pg["alpha"], **{k: d4pg[k] for k in ("capacity", "gamma")},
        )  # fmt: skip
        self._gamma, self._range = d4pg["gamma"], (d4pg["v_min"], d4pg["v_max"])
        self._warned = False
        self._z = atoms(d4pg["v_min"], d4pg["v_max"], d4pg["atoms"])
        sizes = {k: d4pg[k] for k in ("units", "layers", "cnn_depth")}
        shapes = self._observations.shapes
        self._nets, self._target = (
            Nets(shapes, size, d4pg["atoms"], **sizes, name=name) for name in ("nets", "target")
        )
        for nets in (self._nets, self._target):
            nets.build()
        for source, target in zip(self._nets.variables, self._target.variables, strict=True):
            target.assign(source)
        self._build_optimizers(d4pg)
        self._act = tf.function(self._policy_step, autograph=False)
        self.compile()

    def remember(self, episode: Episode) -> None:
        """As OffPolicy.remember; warns once where an episode's returns leave the atoms' range."""
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

    def _build_optimizers(self, d4pg: Mapping[str, Any]) -> None:
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

    def policy(self, timesteps: Any, state: Any, mode: str = "train") -> tuple[np.ndarray, Any]:
        """Chooses actions float32 [n, A]; in training with noise."""
        stack = self._observations.push(state, timesteps)
        return self.act(self._act, stack, mode), stack

    def _policy_step(
        self, obs: Tensors, calls: tf.Tensor, noise_scale: tf.Tensor, training: bool
    ) -> tf.Tensor:
        return self.exploring(self._nets.act(self._nets.torso(obs)), calls, noise_scale, training)

    def update_once(self, batch: Tensors, update: tf.Tensor) -> tuple[Tensors, tf.Tensor]:
        """One update of critic, actor and, every target_period, the target networks."""
        nets = self._nets
        obs = {k: batch[k] for k in self._observations.shapes}
        later = {k: batch[f"next_{k}"] for k in self._observations.shapes}
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
        """Networks, targets and optimizers, by name."""
        found = {f"nets/{v.path}": v for v in self._nets.variables}
        found |= {f"target/{v.path}": v for v in self._target.variables}
        for name, optimizer in self._optimizers.items():
            found |= {f"{name}/adam/{k}": v for k, v in optimizer.state.items()}
        return found


def make(config: Config, obs_space: Mapping[str, Space], act_space: Space) -> D4PG:
    """The agent that a config describes."""
    return D4PG(
        obs_space, act_space, d4pg=config.section("d4pg"), explore=config.section("explore"),
        batch_size=config.train.batch_size, seed=config.seed,
    )  # fmt: skip
