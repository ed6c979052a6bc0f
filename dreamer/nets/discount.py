"""Discount head, for tasks that can end early (arXiv 1912.01603, appendix C)."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_probability as tfp

from dreamer.nets.layers import MLP

tfd = tfp.distributions


class Discount(MLP):
    """Predicts gamma * cont of a state, as the mean of a Bernoulli.

    Args:
        layers: Hidden layers.
        units: Their width.

    Input shape: float32 [N, F]. Output shape: means in (0, 1), float32 [N].
    """

    def __init__(self, *, layers: int, units: int, **kwargs):
        super().__init__(layers, units, 1, **kwargs)

    def call(self, feat: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(self._logits(feat))

    def log_prob(self, feat: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """Bernoulli log likelihood of soft targets gamma * cont: float32 [N], [N] -> [N]."""
        return tfd.Bernoulli(logits=self._logits(feat), dtype=tf.float32).log_prob(target)

    def _logits(self, feat: tf.Tensor) -> tf.Tensor:
        return tf.squeeze(super().call(feat), -1)
