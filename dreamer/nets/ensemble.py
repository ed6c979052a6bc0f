"""Ensemble of one-step predictors, whose disagreement rewards exploration."""

from __future__ import annotations

import keras
import tensorflow as tf

from dreamer.nets.layer_style import PUBLISHED, LayerStyle
from dreamer.nets.layers import MLP
from dreamer.ops.replicas import total


class Ensemble(keras.layers.Layer):
    """Networks that learn the same function from different initial weights.

    They agree where there is much data. The variance between their means estimates what the agent
    could still learn. It does not contain the environment's noise, which none of them can predict
    (Plan2Explore, arXiv 2005.05960, equations 2 to 5).

    Args:
        members: K.
        layers: Hidden layers of each.
        units: Their width.
        outputs: Size of a prediction.
        style: Of the hidden layers.

    Input shape: float32 [N, inputs]. Output shape: float32 [K, N, outputs].
    """

    def __init__(
        self, *, members: int, layers: int, units: int, outputs: int,
        style: LayerStyle = PUBLISHED, **kwargs,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self._members = [
            MLP(layers, units, outputs, style=style, dtype=self.dtype_policy, name=f"member{i}")
            for i in range(members)
        ]

    def build(self, input_shape):
        for member in self._members:
            member.build(input_shape)
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.stack([member(inputs) for member in self._members])

    def loss(self, inputs: tf.Tensor, target: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        """- log Normal(target | mean, 1) without its constant: half the sum of squared errors.

        Averaged over members and over the timesteps that count.

        Args:
            inputs: float32 [N, inputs].
            target: float32 [N, outputs].
            weight: float32 [N], 1 for the timesteps that count, else 0.
        """
        error = tf.reduce_mean(tf.math.squared_difference(self(inputs), target), 0)  # [N, outputs]
        each = 0.5 * tf.reduce_sum(error, -1)
        counted = tf.maximum(total(tf.reduce_sum(weight)), 1.0)
        return total(tf.reduce_sum(weight * each)) / counted

    def disagreement(self, inputs: tf.Tensor) -> tf.Tensor:
        """Variance of the members' means, averaged over the outputs: [N, inputs] -> [N]."""
        return tf.reduce_mean(tf.math.reduce_variance(self(inputs), 0), -1)
