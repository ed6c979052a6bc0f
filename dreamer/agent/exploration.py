"""Exploration noise on the actions of training (arXiv 1912.01603, appendix A)."""

from __future__ import annotations

import tensorflow as tf

from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.ops.distributions import largest


class Exploration:
    """Makes actions explore, with a noise scale that may change during training.

    gaussian adds Normal(0, noise_scale) and clips to [-1, 1]; epsilon replaces an action by a
    uniform one with probability `noise_scale`; random replaces every action by a uniform one;
    none leaves it alone. auto is epsilon for one-hot actions, gaussian for continuous ones.

    Args:
        act_space: The space of the actions.
        kind: auto, gaussian, epsilon, random or none.
        noise_scale: Standard deviation, or epsilon, at the start.
        final: The noise scale after `decay_steps` units.
        decay_steps: How long the change from `noise_scale` to `final` takes; 0 for no change.
        unit: What `decay_steps` counts, "steps" (environment frames) or "updates".
    Raises:
        UserError: The kind does not fit the actions, or an epsilon is no probability.
    """

    def __init__(
        self, act_space: Space, *, kind: str, noise_scale: float, final: float = 0.0,
        decay_steps: int = 0, unit: str = "steps",
    ):  # fmt: skip
        self._discrete, self._parts = act_space.discrete, act_space.parts
        if kind == "auto":
            kind = "epsilon" if self._discrete else "gaussian"
        self._kind, self._noise_scale, self._unit = kind, noise_scale, unit
        self._final, self._decay_steps = final if decay_steps else noise_scale, decay_steps
        if kind == "gaussian" and self._discrete:
            raise UserError("explore.kind is gaussian, but actions are one-hot; leave it at auto")
        if kind == "epsilon" and max(self._noise_scale, self._final) > 1.0:
            raise UserError(
                f"explore.noise_scale {noise_scale} and explore.final {final} are probabilities "
                "where actions explore by epsilon; choose them between 0 and 1"
            )

    def noise_scale(self, step: int, update: int) -> float:
        """The noise scale after this many steps and updates, linear in the one that `unit` names.

        It depends on nothing else, so a resumed run continues the schedule.
        """
        passed = step if self._unit == "steps" else update
        share = min(passed / self._decay_steps, 1.0) if self._decay_steps else 1.0
        return self._noise_scale + share * (self._final - self._noise_scale)

    def __call__(self, action: tf.Tensor, noise_scale: tf.Tensor, seeds: list) -> tf.Tensor:
        """Returns the actions to execute, float32 [n, A].

        Args:
            action: float32 [n, A].
            noise_scale: float32 []; a tensor, because a Python number would be traced anew.
            seeds: Two stateless seeds, int32 [2] each.
        """
        if self._kind == "none":
            return action
        if self._kind == "random":
            return self._uniform(action.shape, seeds[0])
        if self._kind == "gaussian":
            noise = tf.random.stateless_normal(action.shape, seeds[0])
            return tf.clip_by_value(action + noise_scale * noise, -1.0, 1.0)
        explore = tf.random.stateless_uniform([action.shape[0], 1], seeds[1]) < noise_scale
        return tf.where(explore, self._uniform(action.shape, seeds[0]), action)

    def _uniform(self, shape: tf.TensorShape, seed: tf.Tensor) -> tf.Tensor:
        if not self._discrete:
            return tf.random.stateless_uniform(shape, seed, -1.0, 1.0)
        if self._parts:
            return largest(tf.random.stateless_uniform(shape, seed), self._parts)
        choice = tf.random.stateless_uniform(shape[:1], seed, maxval=shape[1], dtype=tf.int32)
        return tf.one_hot(choice, shape[1])
