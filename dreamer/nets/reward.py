"""Reward head (arXiv 1912.01603, section 3 and appendix A)."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_probability as tfp

from dreamer.nets.layers import MLP

tfd = tfp.distributions


class Reward(MLP):
    """Reward received on arriving in a state, as a Normal with unit variance.

    Args:
        layers: Hidden layers.
        units: Their width.

    Input shape: float32 [N, F]. Output shape: means, float32 [N].
    """

    def __init__(self, *, layers: int, units: int, **kwargs):
        super().__init__(layers, units, 1, **kwargs)

    def call(self, feat: tf.Tensor) -> tf.Tensor:
        return tf.squeeze(super().call(feat), -1)

    def dist(self, feat: tf.Tensor) -> tfp.distributions.Distribution:
        """Normal(mean, 1) with batch shape [N]."""
        return tfd.Normal(self(feat), 1.0)
