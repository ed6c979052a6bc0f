"""The range of imagined returns (DreamerV3, arXiv 2301.04104, equations 6 and 7)."""

from __future__ import annotations

import keras
import tensorflow as tf

from dreamer.ops.replicas import gather

_RATE = 0.01


class ReturnRange(keras.layers.Layer):
    """A running average of the range from the 5th to the 95th percentile of returns.

    Batch n moves the average towards its own range by the rate max(1/n, 0.01). A batch that is not
    finite changes nothing.
    """

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})

    def build(self, input_shape=None):
        self._range, self._batches = (
            self.add_weight(
                shape=(), initializer="zeros", trainable=False, name=name, aggregation="mean"
            )
            for name in ("range", "batches")
        )
        self.built = True

    def learn(self, returns: tf.Tensor) -> None:
        """Updates the average by a batch of returns, float32 [N, M]."""
        ordered = tf.sort(tf.reshape(gather(returns), [-1]))
        found = _percentile(ordered, 0.95) - _percentile(ordered, 0.05)
        batches = self._batches + 1.0
        moved = self._range + tf.maximum(1.0 / batches, _RATE) * (found - self._range)
        sound = tf.math.is_finite(moved)
        self._range.assign(tf.where(sound, moved, self._range))
        self._batches.assign(tf.where(sound, batches, self._batches))

    def scale(self) -> tf.Tensor:
        """What to divide returns by: the range, at least 1; float32 []."""
        return tf.maximum(1.0, tf.convert_to_tensor(self._range))


def _percentile(ordered: tf.Tensor, share: float) -> tf.Tensor:
    """The value that this share of ordered numbers [n] lies below, interpolated linearly; []."""
    position = share * (ordered.shape[0] - 1)
    below = int(position)
    above = min(below + 1, ordered.shape[0] - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
