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
    """Makes actions explore, by an amount that may change as training goes on.

    gaussian adds Normal(0, amount) and clips to [-1, 1]; epsilon replaces an action by a uniform
    one with probability `amount`; random replaces every action by a uniform one; none leaves
    it alone.

    Args:
        act_space: Of the actions.
        kind: auto, gaussian, epsilon, random or none.
        amount: Standard deviation, or epsilon, at the start.
        final: The amount after `over` units.
        over: How long the change from `amount` to `final` takes; 0 for no change.
        unit: What `over` counts, "steps" (environment frames) or "updates".
    Raises:
        UserError: The kind does not fit the actions, or an epsilon is no probability.
    """

    def __init__(
        self,
        act_space: Space,
        *,
        kind: str,
        amount: float,
        final: float = 0.0,
        over: int = 0,
        unit: str = "steps",
    ):
        self._kind, self._amount = choose_kind(kind, act_space), amount
        self._final, self._over, self._unit = final if over else amount, over, unit
        self._discrete = act_space.discrete
        if self._kind == "epsilon" and max(self._amount, self._final) > 1.0:
            raise UserError(
                f"explore.amount {amount} and explore.final {final} are probabilities where "
                "actions explore by epsilon; choose them between 0 and 1"
            )

    def amount(self, step: int, update: int) -> float:
        """The amount after that many steps and updates, linear in the one that `unit` names.

        It depends on nothing else: a resumed run goes on where it was.
        """
        passed = step if self._unit == "steps" else update
        share = min(passed / self._over, 1.0) if self._over else 1.0
        return self._amount + share * (self._final - self._amount)

    def __call__(self, action: tf.Tensor, amount: tf.Tensor, seeds: list[tf.Tensor]) -> tf.Tensor:
        """Returns the actions to carry out.

        Args:
            action: float32 [n, A].
            amount: float32 [], of `amount`; a tensor, as a Python number would be traced anew.
            seeds: Two stateless seeds, int32 [2] each.
        Returns:
            float32 [n, A].
        """
        if self._kind == "none":
            return action
        if self._kind == "random":
            return self._uniform(action.shape, seeds[0])
        if self._kind == "gaussian":
            noise = tf.random.stateless_normal(action.shape, seeds[0])
            return tf.clip_by_value(action + amount * noise, -1.0, 1.0)
        explore = tf.random.stateless_uniform([action.shape[0], 1], seeds[1]) < amount
        return tf.where(explore, self._uniform(action.shape, seeds[0]), action)

    def _uniform(self, shape: tf.TensorShape, seed: tf.Tensor) -> tf.Tensor:
        if not self._discrete:
            return tf.random.stateless_uniform(shape, seed, -1.0, 1.0)
        choice = tf.random.stateless_uniform(shape[:1], seed, maxval=shape[1], dtype=tf.int32)
        return tf.one_hot(choice, shape[1])
