"""DQN (Mnih et al., Nature 518, 2015) with double targets and n-step returns, for discrete actions.

From pixels or states. Double: arXiv 1509.06461; n-step: arXiv 1710.02298, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from baselines.memory import Transitions
from baselines.networks import NormMLP, Torso, copy_every
from baselines.observations import Observations
from baselines.off_policy import OffPolicy, Tensors
from dreamer.config.config import Config
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.ops.optimizers import Optimizer, apply_together


class QNetwork(keras.layers.Layer):
    """Observations to the values of all actions: torso, hidden layers, one output an action.

    Args:
        shapes: Of observations.
        actions: A.
        units: Width of hidden layers.
        layers: How many of them.
        cnn_depth: Of the torso.

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
    """return + factor * target[argmax online]: the online network chooses, the target one values.

    Args:
        returns, factor: float32 [B], as `Transitions` gives them.
        online, target: float32 [B, A], both networks' values of the later observation.
    Returns:
        float32 [B].
    """
    chosen = tf.one_hot(tf.argmax(online, -1), online.shape[-1])
    return returns + factor * tf.reduce_sum(chosen * target, -1)


def huber(error: tf.Tensor) -> tf.Tensor:
    """error^2 / 2 up to 1, |error| - 1/2 beyond: a squared error with its gradient clipped."""
    size = tf.abs(error)
    return tf.where(size <= 1.0, 0.5 * tf.square(error), size - 0.5)


class DQN(OffPolicy):
    """The agent.

    loss = mean weight * huber(double-Q target - Q(o)[a]); |target - Q| is a transition's priority.

    Args:
        obs_space, act_space: Of the environment; actions are one-hot.
        dqn: The section of configs/agents/dqn.yaml.
        explore: The section of configs/defaults.yaml: epsilon in training.
        batch_size: Transitions in an update.
        seed: Of weights and noise.
    Raises:
        UserError: Actions are continuous, or observations do not fit.
    """

    metric_names = ("loss", "value", "target", "q_grad_norm", "q_grad_finite", "nonfinite")

    def __init__(
        self, obs_space: Mapping[str, Space], act_space: Space, *, dqn: Mapping[str, Any],
        explore: Mapping[str, Any], batch_size: int, seed: int,
    ):  # fmt: skip
        super().__init__(obs_space, act_space, seed)
        if not act_space.discrete:
            raise UserError("dqn takes one-hot actions, but this task's are continuous; try d4pg")
        keras.utils.set_random_seed(seed)
        self.batch_size, self.group = batch_size, dqn["group"]
        self.explore(explore, dqn["eval_epsilon"])
        self._period = dqn["target_period"]
        self._observations = Observations(obs_space, dqn["frames"], dqn["gray"])
        size = act_space.shape[0]
        self.memory = Transitions(
            self._observations, size, seed=seed, n=dqn["n_step"],
            reward_bound=1.0 if dqn["clip_rewards"] else np.inf,
            **{k: dqn[k] for k in ("alpha", "beta", "capacity", "gamma")},
        )  # fmt: skip
        sizes = {k: dqn[k] for k in ("units", "layers", "cnn_depth")}
        self._nets, self._target = (
            QNetwork(self._observations.shapes, size, **sizes, name=name)
            for name in ("nets", "target")
        )
        for nets in (self._nets, self._target):
            nets.build()
        for source, target in zip(self._nets.variables, self._target.variables, strict=True):
            target.assign(source)
        self._optimizer = Optimizer(
            self._nets.trainable_variables, dqn["lr"], dqn["eps"], dqn["clip"], False, "adam"
        )
        self._act = tf.function(self._policy_step, autograph=False)
        self.compile()

    def policy(self, timesteps: Any, state: Any, mode: str = "train") -> tuple[np.ndarray, Any]:
        """Chooses one-hot actions float32 [n, A]; in evaluations greedy but for eval_epsilon."""
        stack = self._observations.push(state, timesteps)
        return self.act(self._act, stack, mode), stack

    def _policy_step(
        self, obs: Tensors, calls: tf.Tensor, noise_scale: tf.Tensor, training: bool
    ) -> tf.Tensor:
        values = self._nets(obs)
        greedy = tf.one_hot(tf.argmax(values, -1), values.shape[-1])
        return self.exploring(greedy, calls, noise_scale, training)

    def update_once(self, batch: Tensors, update: tf.Tensor) -> tuple[Tensors, tf.Tensor]:
        """One update, and every target_period a copy to the target network."""
        nets = self._nets
        obs = {k: batch[k] for k in self._observations.shapes}
        later = {k: batch[f"next_{k}"] for k in self._observations.shapes}
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
        """Networks and optimizer, by name."""
        found = {f"nets/{v.path}": v for v in self._nets.variables}
        found |= {f"target/{v.path}": v for v in self._target.variables}
        return found | {f"adam/{k}": v for k, v in self._optimizer.state.items()}


def make(config: Config, obs_space: Mapping[str, Space], act_space: Space) -> DQN:
    """The agent that a config describes."""
    return DQN(
        obs_space, act_space, dqn=config.section("dqn"), explore=config.section("explore"),
        batch_size=config.train.batch_size, seed=config.seed,
    )  # fmt: skip
