"""Observation encoder (arXiv 1912.01603, appendix A)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from dreamer.errors import UserError
from dreamer.nets.convolutions import ENCODERS
from dreamer.nets.layer_style import PUBLISHED, LayerStyle
from dreamer.nets.layers import Conv, HiddenDense

Shapes = Mapping[str, Sequence[int]]


class Encoder(keras.layers.Layer):
    """Embeds 64x64 images by four strided convolutions and vectors by an MLP; joins the two.

    Args:
        shapes: Observation key -> shape.
        keys: Which observations to take; see `matching_keys`.
        cnn: Name of the convolutions, in `dreamer.nets.convolutions`.
        cnn_depth: The convolutions have multiples of this number of channels.
        mlp_layers: Hidden layers for the vectors.
        mlp_units: Their width, and the size of the vectors' embedding.
        style: Of all layers.

    Attributes:
        shapes: The shapes of the chosen observations.
        size: E, the width of the embedding.

    Input: dict of float32 [N, *shape]. Output: [N, E] in the compute dtype.
    """

    def __init__(
        self, shapes: Shapes, *, keys: str = ".*", cnn: str = "worldmodels", cnn_depth: int,
        mlp_layers: int, mlp_units: int, style: LayerStyle = PUBLISHED, **kwargs,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.shapes = matching_keys("encoder", keys, shapes)
        self._images = sorted(k for k, s in self.shapes.items() if len(s) == 3)
        self._vectors = sorted(k for k, s in self.shapes.items() if len(s) == 1)
        policy, stack = self.dtype_policy, ENCODERS[cnn]
        self._convs = [
            Conv(
                cnn_depth * multiple, stack.kernel, 2, style, padding=stack.padding, dtype=policy,
                name=f"conv{i}",
            )
            for i, multiple in enumerate(stack.multiples if self._images else ())
        ]  # fmt: skip
        self._dense = [
            HiddenDense(mlp_units, style, dtype=policy, name=f"dense{i}")
            for i in range(mlp_layers if self._vectors else 0)
        ]
        self._vector_size = sum(self.shapes[k][0] for k in self._vectors)
        self.size = mlp_units if self._dense else self._vector_size
        self.size += stack.size(cnn_depth) if self._images else 0

    def build(self, input_shape=None):
        shape = (None, 64, 64, sum(self.shapes[k][-1] for k in self._images))
        for conv in self._convs:
            conv.build(shape)
            shape = conv.compute_output_shape(shape)
        size = self._vector_size
        for dense in self._dense:
            dense.build((None, size))
            size = dense.units
        self.built = True

    def call(self, obs: dict[str, tf.Tensor]) -> tf.Tensor:
        parts = []
        for keys, layers in ((self._images, self._convs), (self._vectors, self._dense)):
            if keys:
                x = tf.concat([tf.cast(obs[k], self.compute_dtype) for k in keys], -1)
                for layer in layers:
                    x = layer(x)
                parts.append(tf.reshape(x, [-1, math.prod(x.shape[1:])]))
        return tf.concat(parts, -1)  # [N, E]


def matching_keys(part: str, pattern: str, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes of the observations whose whole name matches a regular expression.

    Raises:
        UserError: If the pattern is no regular expression, matches nothing, or matches what is
            neither an image [64, 64, C] nor a vector.
    """
    try:
        chosen = {k: tuple(s) for k, s in shapes.items() if re.fullmatch(pattern, k)}
    except re.error as error:
        raise UserError(f"{part}.keys {pattern!r} is not a regular expression: {error}") from None
    if not chosen:
        raise UserError(f"{part}.keys {pattern!r} matches none of {', '.join(sorted(shapes))}")
    for key, shape in chosen.items():
        if len(shape) != 1 and not (len(shape) == 3 and shape[:2] == (64, 64)):
            raise UserError(
                f"{part} takes images [64, 64, channels] and vectors [size], but {key} has shape "
                f"{list(shape)}; choose other observations with {part}.keys"
            )
    return chosen
