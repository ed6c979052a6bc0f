"""DQN (Mnih et al., Nature 518, 2015) with double targets and n-step returns, for discrete actions.

Takes pixels or states. Double targets: arXiv 1509.06461; n-step: arXiv 1710.02298, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from baselines.off_policy import OffPolicy, Tensors
from baselines.torso import Head, Heads
from dreamer.config.config import Config
from dreamer.envs.spec import Space
from dreamer.errors import UserError


class DQN(OffPolicy):
    """The agent. Its network has one output Q per action; a prime (') marks the target network.

        target = return + factor Q'(o')[argmax Q(o')]
        loss   = mean weight * huber(target - Q(o)[a])

    with huber(x) = x^2 / 2 up to |x| = 1 and |x| - 1/2 beyond, so that the gradient is clipped, and
    o' the observation at the end of the n-step transition. |target - Q| is its priority. Raises
    UserError if actions are continuous, or observations do not fit.
    """

    def __init__(self, config: Config, obs_space: Mapping[str, Space], act_space: Space):
        dqn = config.dqn
        if not act_space.discrete:
            raise UserError("dqn takes one-hot actions, but this task's are continuous; try d4pg")
        if act_space.parts:
            raise UserError("dqn takes one number as its action, but this task's are several")
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
        """Returns the loss, metrics, and each transition's error [B]."""
        online, copied = values(self._nets, later), values(self._target, later)
        chosen = tf.one_hot(tf.argmax(online, -1), online.shape[-1])
        target = batch["return"] + batch["factor"] * tf.reduce_sum(chosen * copied, -1)
        value = tf.reduce_sum(values(self._nets, obs) * batch["action"], -1)  # [B]
        error = tf.stop_gradient(target) - value
        size = tf.abs(error)
        huber = tf.where(size <= 1.0, 0.5 * tf.square(error), size - 0.5)
        loss = tf.reduce_mean(batch["weight"] * huber)
        means = {"value": tf.reduce_mean(value), "target": tf.reduce_mean(target)}
        return {"q": loss}, {"loss": loss, **means}, error


def values(nets: Heads, obs: Tensors) -> tf.Tensor:
    """Observations -> the values of all actions, float32 [N, A]."""
    return nets.head(nets.torso(obs))
