"""Reward head (arXiv 1912.01603, section 3 and appendix A)."""

from __future__ import annotations

import tensorflow as tf

from dreamer.nets.layers import UnitNormalHead

_TRANSFORMS = {"none": tf.identity, "tanh": tf.tanh}


class Reward(UnitNormalHead):
    """Predicts the reward received on arriving in a state, on the scale of `target`.

    Args:
        layers, units: As UnitNormalHead's.
        transform: "none", or "tanh" as in the paper on Atari and DeepMind Lab (appendix A).
    Raises:
        ValueError: If there is no such transform.
    """

    def __init__(self, *, layers: int, units: int, transform: str = "none", **kwargs):
        super().__init__(layers=layers, units=units, **kwargs)
        if transform not in _TRANSFORMS:
            raise ValueError(f"transform should be one of {list(_TRANSFORMS)}, not {transform!r}")
        self._transform = _TRANSFORMS[transform]

    def target(self, reward: tf.Tensor) -> tf.Tensor:
        """The environment's reward on the scale that this head learns, [...] -> [...]."""
        return self._transform(reward)
