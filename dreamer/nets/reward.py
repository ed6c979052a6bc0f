"""Reward head (arXiv 1912.01603, section 3 and appendix A)."""

from __future__ import annotations

import tensorflow as tf

from dreamer.nets.layers import UnitNormalHead

_TRANSFORMS = {"none": tf.identity, "tanh": tf.tanh}


class Reward(UnitNormalHead):
    """Reward received on arriving in a state, on the scale that `target` gives.

    Args:
        layers, units: As UnitNormalHead's.
        transform: "none", or "tanh" as the paper has it for Atari and DeepMind Lab (appendix A).
    Raises:
        ValueError: If the transform is another.
    """

    def __init__(self, *, layers: int, units: int, transform: str = "none", **kwargs):
        super().__init__(layers=layers, units=units, **kwargs)
        if transform not in _TRANSFORMS:
            raise ValueError(f"transform should be one of {list(_TRANSFORMS)}, not {transform!r}")
        self._transform = _TRANSFORMS[transform]

    def target(self, reward: tf.Tensor) -> tf.Tensor:
        """What this head learns in place of the environment's reward, [...] -> [...]."""
        return self._transform(reward)
