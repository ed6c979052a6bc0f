"""Running statistics of what the replay holds, to give every number the same scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from dreamer.ops.replicas import average
from dreamer.ops.scalars import symexp, symlog
from dreamer.ops.shapes import flatten_leading

_LEAST_RATE = 1e-3  # the statistics follow about the last thousand batches


class RunningScale(keras.layers.Layer):
    """Mean and standard deviation of vectors, learnt from batches of the replay.

    Batch n moves both towards its own by the rate max(1/n, 1e-3): up to batch 1000 they are those
    of all batches so far, then an exponential average. With m, s^2 the statistics and b, c^2 those
    of the batch:

        m' = m + rate (b - m),   s'^2 = (1 - rate) (s^2 + rate (b - m)^2) + rate c^2

    so s'^2 is the variance around m'. A batch that is not finite changes nothing. Before the first
    batch the mean is 0 and the standard deviation 1.

    Args:
        size: Components of a vector.
        centered: Whether to take off the mean. If not, the scale is the root mean square.

    Input shape: float32 [..., size]. Output shape: the same.
    """

    def __init__(self, size: int, centered: bool = True, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self._size, self._centered = size, centered

    def build(self, input_shape=None):
        def make(name: str, shape: tuple[int, ...], initializer: str):
            return self.add_weight(
                shape=shape, initializer=initializer, trainable=False, name=name,
                aggregation="mean",
            )  # fmt: skip

        self._mean = make("mean", (self._size,), "zeros")
        self._variance = make("variance", (self._size,), "ones")
        self._batches = make("batches", (), "zeros")
        self.built = True

    @property
    def std(self) -> tf.Tensor:
        """Standard deviation, or root mean square, of each component; float32 [size].

        It is above the rounding of the mean, so that a constant component stays near 0.
        """
        mean = tf.convert_to_tensor(self._mean)
        return tf.maximum(tf.sqrt(self._variance), tf.maximum(1e-6 * tf.abs(mean), 1e-8))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return (inputs - self._mean) / self.std

    def inverse(self, outputs: tf.Tensor) -> tf.Tensor:
        """The inputs [..., size] that give these outputs."""
        return outputs * self.std + self._mean

    def learn(self, vectors: tf.Tensor) -> None:
        """Updates the statistics by a batch, float32 [..., size]."""
        rows = flatten_leading(vectors)
        mean = average(tf.reduce_mean(rows, 0)) if self._centered else tf.zeros(self._size)
        variance = average(tf.reduce_mean(tf.math.squared_difference(rows, mean), 0))
        batches = self._batches + 1.0
        rate = tf.maximum(1.0 / batches, _LEAST_RATE)
        moved = mean - self._mean
        spread = (1.0 - rate) * (self._variance + rate * tf.square(moved)) + rate * variance
        sound = tf.reduce_all(tf.math.is_finite(spread))
        for variable, new in (
            (self._mean, self._mean + rate * moved),
            (self._variance, spread),
            (self._batches, batches),
        ):
            variable.assign(tf.where(sound, new, variable))


class VectorScaling(keras.layers.Layer):
    """The scale on which the world model sees and predicts vectors.

    Args:
        shapes: Observation key -> shape; images [64, 64, C] stay as they are.
        normalize: Whether to take off the mean and divide by the standard deviation of the replay.
        symlog: Whether to take `symlog` of vectors, after normalising.
    """

    def __init__(
        self, shapes: Mapping[str, Sequence[int]], *, normalize: bool, symlog: bool, **kwargs
    ):
        super().__init__(**kwargs)
        vectors = sorted(key for key, shape in shapes.items() if len(shape) == 1)
        self._symlog = set(vectors if symlog else ())
        self.scales = {
            key: RunningScale(shapes[key][0], name=f"scale{i}")
            for i, key in enumerate(vectors if normalize else ())
        }

    def build(self, input_shape=None):
        for scale in self.scales.values():
            scale.build()
        self.built = True

    def scaled(self, key: str, vector: tf.Tensor) -> tf.Tensor:
        """The observation `key`, float32, on the model's scale."""
        if key in self.scales:
            vector = self.scales[key](vector)
        return symlog(vector) if key in self._symlog else vector

    def unscaled(self, key: str, vector: tf.Tensor) -> tf.Tensor:
        """The inverse of `scaled`."""
        if key in self._symlog:
            vector = symexp(vector)
        return self.scales[key].inverse(vector) if key in self.scales else vector

    def learn(self, obs: Mapping[str, tf.Tensor]) -> None:
        """Updates the statistics by observations of the environment."""
        for key, scale in self.scales.items():
            scale.learn(tf.cast(obs[key], tf.float32))

    def scalars(self) -> dict[str, tf.Tensor]:
        """The least and the largest standard deviation of each vector."""
        stds = {key: scale.std for key, scale in self.scales.items()}
        least = {f"{key}_least_std": tf.reduce_min(std) for key, std in stds.items()}
        return least | {f"{key}_largest_std": tf.reduce_max(std) for key, std in stds.items()}
