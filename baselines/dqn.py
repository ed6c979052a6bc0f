"""DQN (Mnih et al., Nature 518, 2015) with double targets and n-step returns, for discrete actions.

From pixels or states. Double: arXiv 1509.06461; n-step: arXiv 1710.02298, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from baselines.networks import NormMLP, Torso, copy_every
from baselines.off_policy import OffPolicy, Tensors
from dreamer.config.config import Config
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.ops.optimizers import Optimizer, apply_together


class QNetwork(keras.layers.Layer):
    """Maps observations to the values of all actions: torso, hidden layers, one output an action.

    Args:
        shapes: Shapes of observations.
        actions: A.
        units: Width of hidden layers.
        layers: Number of hidden layers.
        cnn_depth: Channels of the torso's first convolution.

    Output shape: float32 [N, A].
    """

    def __init__(
        self, shapes: Mapping[str, Any], actions: int, *, units: int, layers: int, cnn_depth: int,
        **kwargs,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self._torso = Torso(shapes, cnn_depth, name="torso")
        self._head = NormMLP([units] * layers, actions, name="head")

    def build(self, input_shape=None):
        self._torso.build()
        self._head.build((None, self._torso.size))
        self.built = True

    def call(self, obs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return self._head(self._torso(obs))


def double_q_target(
    returns: tf.Tensor, factor: tf.Tensor, online: tf.Tensor, target: tf.Tensor
) -> tf.Tensor:
    """Returns return + factor * target[argmax online]: one network chooses, the other one values.

    Args:
        returns, factor: float32 [B], from `Transitions`.
        online, target: float32 [B, A], both networks' values of the later observation.
    Returns:
        float32 [B].
    """
    chosen = tf.one_hot(tf.argmax(online, -1), online.shape[-1])
    return returns + factor * tf.reduce_sum(chosen * target, -1)


def huber(error: tf.Tensor) -> tf.Tensor:
    """Returns error^2 / 2 up to 1 and |error| - 1/2 beyond, so that the gradient is clipped."""
    size = tf.abs(error)
    return tf.where(size <= 1.0, 0.5 * tf.square(error), size - 0.5)


class DQN(OffPolicy):
    """The agent.

    loss = mean weight * huber(double-Q target - Q(o)[a]); |target - Q| is a transition's priority.

    Args:
        obs_space, act_space: The environment's; actions are one-hot.
        dqn: The section of configs/agents/dqn.yaml.
        explore, batch_size, seed: See `OffPolicy`.

    Raises:
        UserError: Actions are continuous, or observations do not fit.
    """

    metric_names = ("loss", "value", "target", "q_grad_norm", "q_grad_finite", "nonfinite")

    def __init__(
        self, obs_space: Mapping[str, Space], act_space: Space, *, dqn: Mapping[str, Any],
        explore: Mapping[str, Any], batch_size: int, seed: int,
    ):  # fmt: skip
        if not act_space.discrete:
            raise UserError("dqn takes one-hot actions, but this task's are continuous; try d4pg")
        super().__init__(
            obs_space, act_space, dqn, explore=explore, batch_size=batch_size, seed=seed,
            gray=dqn["gray"], eval_epsilon=dqn["eval_epsilon"],
            reward_bound=1.0 if dqn["clip_rewards"] else np.inf,
        )  # fmt: skip
        shapes, actions = self._observations.shapes, act_space.shape[0]
        sizes = {k: dqn[k] for k in ("units", "layers", "cnn_depth")}
        self.build(lambda name: QNetwork(shapes, actions, **sizes, name=name))
        self._optimizer = Optimizer(
            self._nets.trainable_variables, dqn["lr"], dqn["eps"], dqn["clip"], False, "adam"
        )

    def greedy(self, obs: Tensors) -> tf.Tensor:
        """Returns the one-hot actions [n, A] of largest value."""
        values = self._nets(obs)
        return tf.one_hot(tf.argmax(values, -1), values.shape[-1])

    def update_once(self, batch: Tensors, update: tf.Tensor) -> tuple[Tensors, tf.Tensor]:
        """Updates the network, and every target_period its target."""
        nets, (obs, later) = self._nets, self.observations_of(batch)
        target = double_q_target(batch["return"], batch["factor"], nets(later), self._target(later))
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(nets(obs) * batch["action"], -1)  # [B]
            error = tf.stop_gradient(target) - value
            loss = tf.reduce_mean(batch["weight"] * huber(error))
        gradients = {"q": tape.gradient(loss, nets.trainable_variables)}
        report = apply_together({"q": self._optimizer}, gradients, {"q": loss})
        copy_every(self._period, update, nets.variables, self._target.variables)
        means = {"value": tf.reduce_mean(value), "target": tf.reduce_mean(target)}
        return {"loss": loss, **means, **report}, error

    def variables(self) -> dict[str, Any]:
        """Returns the variables of networks, targets and optimizer, by name."""
        return super().variables() | {f"adam/{k}": v for k, v in self._optimizer.state.items()}


def make(config: Config, obs_space: Mapping[str, Space], act_space: Space) -> DQN:
    """Returns the agent that a config describes."""
    return DQN(
        obs_space, act_space, dqn=config.section("dqn"), explore=config.section("explore"),
        batch_size=config.train.batch_size, seed=config.seed,
    )  # fmt: skip
