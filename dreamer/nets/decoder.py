"""Observation decoder (arXiv 1912.01603, appendix A; network of World Models, 1803.10122)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from dreamer.nets.layers import MLP, Dense, TransposedConv
from dreamer.ops.distributions import unit_normal_log_prob


class Decoder(keras.layers.Layer):
    """Predicts observations from features as Normals with unit variance.

    Images: dense layer to 32 * cnn_depth, then transposed convolutions with kernels 5, 5, 6, 6.
    Vectors: one MLP for all of them.

    Args:
        shapes: Observation key -> shape, images [64, 64, C] and vectors [size], no others.
        cnn_depth: Channels before the last layer; 32 in the paper.
        mlp_layers: Hidden layers for the vectors.
        mlp_units: Their width.

    Input shape: float32 [N, F]. Output: dict of means, float32 [N, *shape].
    """

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        *,
        cnn_depth: int,
        mlp_layers: int,
        mlp_units: int,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self._images = {k: tuple(s) for k, s in sorted(shapes.items()) if len(s) == 3}
        self._vectors = {k: tuple(s) for k, s in sorted(shapes.items()) if len(s) == 1}
        policy = self.dtype_policy
        self._depth = cnn_depth
        if self._images:
            channels = sum(s[-1] for s in self._images.values())
            self._dense = Dense(32 * cnn_depth, dtype=policy, name="dense")
            plan = [(4 * cnn_depth, 5), (2 * cnn_depth, 5), (cnn_depth, 6), (channels, 6)]
            self._convs = [
                TransposedConv(
                    filters, kernel, "relu" if i < 3 else None, dtype=policy, name=f"conv{i}"
                )
                for i, (filters, kernel) in enumerate(plan)
            ]
        if self._vectors:
            outputs = sum(s[0] for s in self._vectors.values())
            self._mlp = MLP(mlp_layers, mlp_units, outputs, dtype=policy, name="mlp")

    def build(self, input_shape):
        if self._images:
            self._dense.build(input_shape)
            channels = 32 * self._depth
            for conv, factor in zip(self._convs, (4, 2, 1, 0), strict=True):
                conv.build((None, None, None, channels))
                channels = factor * self._depth
        if self._vectors:
            self._mlp.build(input_shape)
        self.built = True

    def call(self, feat: tf.Tensor) -> dict[str, tf.Tensor]:
        return {**self._decode_images(feat), **self._decode_vectors(feat)}

    def log_prob(self, feat: tf.Tensor, obs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Log density of each observation given its features.

        Args:
            feat: float32 [N, F].
            obs: float32 [N, *shape] for each key.
        Returns:
            float32 [N] for each key, constants included.
        """
        means = self(feat)
        return {
            key: unit_normal_log_prob(obs[key], mean, mean.shape.rank - 1)
            for key, mean in means.items()
        }

    def _decode_images(self, feat: tf.Tensor) -> dict[str, tf.Tensor]:
        if not self._images:
            return {}
        x = self._dense(feat)
        x = tf.reshape(x, [-1, 1, 1, 32 * self._depth])
        for conv in self._convs:
            x = conv(x)
        sizes = [s[-1] for s in self._images.values()]
        parts = tf.split(tf.cast(x, tf.float32), sizes, -1)  # [N, 64, 64, C] each
        return dict(zip(self._images, parts, strict=True))

    def _decode_vectors(self, feat: tf.Tensor) -> dict[str, tf.Tensor]:
        if not self._vectors:
            return {}
        parts = tf.split(self._mlp(feat), [s[0] for s in self._vectors.values()], -1)
        return dict(zip(self._vectors, parts, strict=True))
