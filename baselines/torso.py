"""Networks that the model-free agents share, and target networks that follow others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from dreamer.nets.encoder import Encoder
from dreamer.nets.layers import Dense
from dreamer.ops.replicas import follow


class Torso(keras.layers.Layer):
    """Maps observations to one vector: Dreamer's convolutions on images, vectors as they are.

    Args:
        shapes: Observation key -> shape, as `Observations.shapes`.
        cnn_depth: Channels of the first of four convolutions; each next one has twice as many.

    Input: dict of uint8 images [N, 64, 64, C] and float32 vectors [N, V]. Output: float32 [N, E].
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]], cnn_depth: int, **kwargs):
        super().__init__(**kwargs)
        # Without hidden layers the encoder passes vectors on.
        self._encoder = Encoder(
            shapes, cnn_depth=cnn_depth, mlp_layers=0, mlp_units=1, dtype=self.dtype_policy,
            name="encoder",
        )  # fmt: skip
        self.size = self._encoder.size

    def build(self, input_shape=None):
        self._encoder.build()
        self.built = True

    def call(self, obs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        scaled = {k: tf.cast(v, tf.float32) / 255.0 - 0.5 for k, v in obs.items() if k == "image"}
        return self._encoder({**obs, **scaled})


class NormMLP(keras.layers.Layer):
    """A dense layer with layer normalisation and tanh, ELU layers, and a linear output.

    The first layer is that of the agents in the report on DeepMind Control (arXiv 1801.00690,
    section 5.1: "layer normalization ... on the first layer"). It brings observations of different
    scales to one scale.

    Args:
        layers: Number of hidden layers, the first included.
        units: Width of each.
        outputs: Size of the output.
        init_scale: Bound of the output layer's first weights, uniform; 0 for Glorot's.

    Input shape: float32 [N, inputs]. Output shape: float32 [N, outputs].
    """

    def __init__(self, layers: int, units: int, outputs: int, init_scale: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self._norm = keras.layers.LayerNormalization(name="norm")
        self._hidden = [
            Dense(units, activation="elu" if i else None, name=f"dense{i}") for i in range(layers)
        ]
        uniform = keras.initializers.RandomUniform(-init_scale, init_scale)
        initializer = uniform if init_scale else "glorot_uniform"
        self._out = Dense(outputs, kernel_initializer=initializer, name="out")

    def build(self, input_shape):
        size = input_shape[-1]
        for layer in self._hidden:
            layer.build((None, size))
            size = layer.units
        self._norm.build((None, size))
        self._out.build((None, size))
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        x = tf.tanh(self._norm(self._hidden[0](inputs)))
        for layer in self._hidden[1:]:
            x = layer(x)
        return self._out(x)


class Head(NamedTuple):
    """A network on the torso's features."""

    outputs: int  # size of its output
    others: int = 0  # size of its inputs besides the features
    init_scale: float = 0.0  # see `NormMLP`


class Heads(keras.layers.Layer):
    """A torso, and networks that share it. The dense layers are each one's own.

    Args:
        shapes: Shapes of observations.
        heads: The networks by name; each becomes an attribute of this layer.
        layers, units: Hidden layers of each, and their width.
        cnn_depth: Channels of the torso's first convolution.
    """

    def __init__(
        self, shapes: Mapping[str, Sequence[int]], heads: Mapping[str, Head], *, layers: int,
        units: int, cnn_depth: int, **kwargs,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.torso, self._others = Torso(shapes, cnn_depth, name="torso"), {}
        for name, (outputs, others, init_scale) in heads.items():
            setattr(self, name, NormMLP(layers, units, outputs, init_scale, name=name))
            self._others[name] = others

    def build(self, input_shape=None):
        self.torso.build()
        for name, others in self._others.items():
            getattr(self, name).build((None, self.torso.size + others))
        self.built = True


def copy_every(
    period: int, update: tf.Tensor, sources: Sequence[tf.Variable], targets: Sequence[tf.Variable]
) -> None:
    """Copies the sources to the targets after the updates (int32) 0, `period`, 2 `period`, ..."""

    def copy() -> tf.Tensor:
        follow(1.0, sources, targets)
        return tf.constant(True)

    tf.cond(update % period == 0, copy, lambda: tf.constant(False))
