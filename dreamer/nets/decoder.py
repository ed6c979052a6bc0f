"""Observation decoder (arXiv 1912.01603, appendix A)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import keras
import tensorflow as tf

from dreamer.nets.convolutions import DECODERS
from dreamer.nets.encoder import Shapes, matching_keys
from dreamer.nets.layer_style import PUBLISHED, LayerStyle, NormActivation
from dreamer.nets.layers import MLP, Dense, TransposedConv
from dreamer.ops.distributions import unit_normal_log_prob


class Decoder(keras.layers.Layer):
    """Predicts observations from features as Normals with unit variance.

    Images: a dense layer, then transposed convolutions. Vectors: one MLP for all of them.

    Args:
        shapes: Observation key -> shape.
        keys: Which observations to predict; see `matching_keys`.
        cnn: Name of the transposed convolutions, in `dreamer.nets.convolutions`.
        cnn_depth: They have multiples of this number of channels; 32 in the paper.
        mlp_layers: Hidden layers for the vectors.
        mlp_units: Their width.
        scale: Weight of the observations' losses.
        style: Of the hidden layers.

    Attributes:
        shapes: The shapes of the chosen observations.
        scale: As above.

    Input shape: float32 [N, F]. Output: dict of means, float32 [N, *shape].
    """

    def __init__(
        self, shapes: Shapes, *, keys: str = ".*", cnn: str = "worldmodels", cnn_depth: int,
        mlp_layers: int, mlp_units: int, scale: float = 1.0, style: LayerStyle = PUBLISHED,
        **kwargs,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.scale = scale
        self.shapes = matching_keys("decoder", keys, shapes)
        # The sizes of the outputs' last axis, in the order of the names.
        self._images = {k: s[-1] for k, s in sorted(self.shapes.items()) if len(s) == 3}
        self._vectors = {k: s[-1] for k, s in sorted(self.shapes.items()) if len(s) == 1}
        policy, stack = self.dtype_policy, DECODERS[cnn]
        self._small = stack.side, stack.side, stack.multiple * cnn_depth
        self._sigmoid = stack.sigmoid
        if self._images:
            self._dense = Dense(
                math.prod(self._small), kernel_initializer=style.initializer(), dtype=policy,
                name="dense",
            )  # fmt: skip
            after = style if stack.hidden else LayerStyle("linear")
            self._finish = NormActivation(after, "relu", dtype=policy, name="finish")
            depths = *(cnn_depth * n for n in stack.multiples), sum(self._images.values())
            last = len(depths) - 1
            self._convs = [
                TransposedConv(
                    *sizes, style, hidden=i < last, padding=stack.padding, dtype=policy,
                    name=f"conv{i}",
                )
                for i, sizes in enumerate(zip(depths, stack.kernels, strict=True))
            ]  # fmt: skip
        if self._vectors:
            outputs = sum(self._vectors.values())
            self._mlp = MLP(
                mlp_layers, mlp_units, outputs, style=style, dtype=policy, name="mlp"
            )

    def build(self, input_shape):
        if self._images:
            self._dense.build(input_shape)
            self._finish.build((None, *self._small))
            channels = self._small[-1]
            for conv in self._convs:
                conv.build((None, None, None, channels))
                channels = conv.filters
        if self._vectors:
            self._mlp.build(input_shape)
        self.built = True

    def call(self, feat: tf.Tensor) -> dict[str, tf.Tensor]:
        means: dict[str, tf.Tensor] = {}
        if self._images:
            x = self._finish(tf.reshape(self._dense(feat), [-1, *self._small]))
            for conv in self._convs:
                x = conv(x)
            x = tf.cast(x, tf.float32)
            if self._sigmoid:
                x = tf.sigmoid(x) - 0.5  # preprocessed images are in [-0.5, 0.5]
            parts = tf.split(x, list(self._images.values()), -1)
            means |= zip(self._images, parts, strict=True)  # [N, 64, 64, C] each
        if self._vectors:
            parts = tf.split(self._mlp(feat), list(self._vectors.values()), -1)
            means |= zip(self._vectors, parts, strict=True)
        return means

    def log_prob(self, feat: tf.Tensor, obs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Log density of each observation given its features.

        Args:
            feat: float32 [N, F].
            obs: float32 [N, *shape] for each key.
        Returns:
            float32 [N] for each key, constants included.
        """
        return {
            key: unit_normal_log_prob(obs[key], mean, mean.shape.rank - 1)
            for key, mean in self(feat).items()
        }
