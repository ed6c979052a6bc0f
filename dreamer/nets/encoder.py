"""Observation encoder (arXiv 1912.01603, appendix A; network of World Models, 1803.10122)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from dreamer.nets.layers import Conv, Dense


class Encoder(keras.layers.Layer):
    """Embeds 64x64 images by four strided convolutions, vectors by an MLP, and joins the two.

    Args:
        shapes: Observation key -> shape, images [64, 64, C] and vectors [size], no others.
        cnn_depth: Channels of the first convolution; doubled by each of the next three.
        mlp_layers: Hidden layers for the vectors.
        mlp_units: Their width, and the size of the vectors' embedding.

    Input: dict of float32 [N, *shape]. Output: [N, E] in the compute dtype, E = `size`.
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
        self._images = sorted(k for k, s in shapes.items() if len(s) == 3)
        self._vectors = sorted(k for k, s in shapes.items() if len(s) == 1)
        self._shapes = {k: tuple(s) for k, s in shapes.items()}
        policy = self.dtype_policy
        self._convs = [
            Conv(cnn_depth * 2**i, 4, 2, activation="relu", dtype=policy, name=f"conv{i}")
            for i in range(4 if self._images else 0)
        ]
        self._dense = [
            Dense(mlp_units, activation="elu", dtype=policy, name=f"dense{i}")
            for i in range(mlp_layers if self._vectors else 0)
        ]
        vector_size = mlp_units if self._dense else sum(s[0] for s in self._vector_shapes())
        self.size = (cnn_depth * 32 if self._images else 0) + vector_size

    def build(self, input_shape=None):
        if self._images:
            shape = (None, 64, 64, sum(self._shapes[k][-1] for k in self._images))
            for conv in self._convs:
                conv.build(shape)
                shape = conv.compute_output_shape(shape)
        size = sum(s[0] for s in self._vector_shapes())
        for dense in self._dense:
            dense.build((None, size))
            size = dense.units
        self.built = True

    def call(self, obs: dict[str, tf.Tensor]) -> tf.Tensor:
        parts = []
        if self._images:
            x = tf.concat([tf.cast(obs[k], self.compute_dtype) for k in self._images], -1)
            for conv in self._convs:
                x = conv(x)
            parts.append(tf.reshape(x, [-1, x.shape[1] * x.shape[2] * x.shape[3]]))
        if self._vectors:
            x = tf.concat([tf.cast(obs[k], self.compute_dtype) for k in self._vectors], -1)
            for dense in self._dense:
                x = dense(x)
            parts.append(x)
        return tf.concat(parts, -1)  # [N, E]

    def _vector_shapes(self) -> list[tuple[int, ...]]:
        return [self._shapes[k] for k in self._vectors]
