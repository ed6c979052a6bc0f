"""Noise on the actions of training, for exploration (arXiv 1912.01603, appendix A)."""

from __future__ import annotations

import tensorflow as tf

from dreamer.envs.spec import Space
from dreamer.errors import UserError


def choose_kind(kind: str, act_space: Space) -> str:
    """Resolves ``auto``: epsilon for one-hot actions, gaussian for continuous ones.

    Raises:
        UserError: Gaussian noise on one-hot actions.
    """
    if kind == "auto":
        return "epsilon" if act_space.discrete else "gaussian"
    if kind == "gaussian" and act_space.discrete:
        raise UserError(
            "explore.kind is gaussian, but the actions of this task are one-hot; leave it at auto"
        )
    return kind


class Exploration:
    """Makes actions explore.

    gaussian adds Normal(0, amount) and clips to [-1, 1]; epsilon replaces an action by a uniform
    one with probability `amount`; none leaves it alone.

    Args:
        act_space: Of the actions.
        kind: auto, gaussian, epsilon or none.
        amount: Standard deviation, or epsilon.
    """

    def __init__(self, act_space: Space, *, kind: str, amount: float):
        self._kind, self._amount = choose_kind(kind, act_space), amount
        self._discrete = act_space.discrete

    def __call__(self, action: tf.Tensor, seeds: list[tf.Tensor]) -> tf.Tensor:
        """float32 [n, A] -> float32 [n, A]; takes two stateless seeds, int32 [2] each."""
        if self._kind == "none":
            return action
        if self._kind == "gaussian":
            noise = tf.random.stateless_normal(action.shape, seeds[0])
            return tf.clip_by_value(action + self._amount * noise, -1.0, 1.0)
        explore = tf.random.stateless_uniform([action.shape[0], 1], seeds[1]) < self._amount
        return tf.where(explore, self._uniform(action.shape, seeds[0]), action)

    def _uniform(self, shape: tf.TensorShape, seed: tf.Tensor) -> tf.Tensor:
        if not self._discrete:
            return tf.random.stateless_uniform(shape, seed, -1.0, 1.0)
        choice = tf.random.stateless_uniform(shape[:1], seed, maxval=shape[1], dtype=tf.int32)
        return tf.one_hot(choice, shape[1])
