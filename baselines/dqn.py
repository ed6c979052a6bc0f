"""DQN (Mnih et al., Nature 518, 2015) with double targets and n-step returns, for discrete actions.

From pixels or states. Double: arXiv 1509.06461; n-step: arXiv 1710.02298, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from baselines.networks import Head, Heads
from baselines.off_policy import OffPolicy, Tensors
from dreamer.config.config import Config
from dreamer.envs.spec import Space
from dreamer.errors import UserError


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
    """The agent. Its network has one output, Q, an action.

    loss = mean weight * huber(double-Q target - Q(o)[a]); |target - Q| is a transition's priority.

    Args:
        config: The run's config; the section dqn is in configs/agents/dqn.yaml.
        obs_space, act_space: The environment's; actions are one-hot.

    Raises:
        UserError: Actions are continuous, or observations do not fit.
    """

    def __init__(self, config: Config, obs_space: Mapping[str, Space], act_space: Space):
        dqn = config.dqn
        if not act_space.discrete:
            raise UserError("dqn takes one-hot actions, but this task's are continuous; try d4pg")
        super().__init__(
            config, obs_space, act_space, {"head": Head(act_space.shape[0])}, gray=dqn.gray,
            eval_epsilon=dqn.eval_epsilon, reward_bound=1.0 if dqn.clip_rewards else np.inf,
        )  # fmt: skip
        self.add_optimizer("q", self._nets.trainable_variables, dqn.lr, "adam")

    def greedy(self, obs: Tensors) -> tf.Tensor:
        """Returns the one-hot actions [n, A] of largest value."""
        found = values(self._nets, obs)
        return tf.one_hot(tf.argmax(found, -1), found.shape[-1])

    def losses(
        self, batch: Tensors, obs: Tensors, later: Tensors
    ) -> tuple[Tensors, Tensors, tf.Tensor]:
        """The loss, metrics, and each transition's error [B]."""
        online, copied = values(self._nets, later), values(self._target, later)
        target = tf.stop_gradient(
            double_q_target(batch["return"], batch["factor"], online, copied)
        )
        value = tf.reduce_sum(values(self._nets, obs) * batch["action"], -1)  # [B]
        error = target - value
        loss = tf.reduce_mean(batch["weight"] * huber(error))
        means = {"value": tf.reduce_mean(value), "target": tf.reduce_mean(target)}
        return {"q": loss}, {"loss": loss, **means}, error


def values(nets: Heads, obs: Tensors) -> tf.Tensor:
    """Observations -> the values of all actions, float32 [N, A]."""
    return nets.head(nets.torso(obs))
