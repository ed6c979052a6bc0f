"""Networks that the model-free agents share, and target networks that follow others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from dreamer.nets.encoder import Encoder
from dreamer.nets.layers import Dense


class Torso(keras.layers.Layer):
    """Maps observations to one vector: Dreamer's convolutions on images, vectors as they are.

    Args:
        shapes: Observation key -> shape, as `Observations.shapes`.
        cnn_depth: Channels of the first of four convolutions; each next one has twice as many.

    Input: dict of uint8 images [N, 64, 64, C] and float32 vectors [N, V]. Output: float32 [N, E].
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]], cnn_depth: int, **kwargs):
        super().__init__(**kwargs)
        self._keys = sorted(shapes)
        # Without hidden layers the encoder passes vectors on.
        sizes = {"cnn_depth": cnn_depth, "mlp_layers": 0, "mlp_units": 1}
        self._encoder = Encoder(shapes, **sizes, dtype=self.dtype_policy, name="encoder")
        self.size = self._encoder.size

    def build(self, input_shape=None):
        self._encoder.build()
        self.built = True

    def call(self, obs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        floats = {k: tf.cast(obs[k], tf.float32) for k in self._keys}
        scaled = {k: v / 255.0 - 0.5 if k == "image" else v for k, v in floats.items()}
        return self._encoder(scaled)


class NormMLP(keras.layers.Layer):
    """A dense layer with layer normalisation and tanh, ELU layers, and a linear output.

    The first layer is that of the agents in the report on DeepMind Control (arXiv 1801.00690,
    section 5.1: "layer normalization ... on the first layer"). It brings observations of different
    scales to one scale.

    Args:
        units: Width of each hidden layer, the first included.
        outputs: Size of the output.
        init_scale: Bound of the output layer's first weights, uniform; 0 for Glorot's.

    Input shape: float32 [N, inputs]. Output shape: float32 [N, outputs].
    """

    def __init__(self, units: Sequence[int], outputs: int, init_scale: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self._norm = keras.layers.LayerNormalization(name="norm")
        self._hidden = [
            Dense(size, activation="elu" if i else None, name=f"dense{i}")
            for i, size in enumerate(units)
        ]
        uniform = keras.initializers.RandomUniform(-init_scale, init_scale)
        initializer = uniform if init_scale else "glorot_uniform"
        self._out = Dense(outputs, kernel_initializer=initializer, name="out")

    def build(self, input_shape):
        size = input_shape[-1]
        for layer in self._hidden:
            layer.build((None, size))
            size = layer.units
        self._norm.build((None, self._hidden[0].units))
        self._out.build((None, size))
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        x = tf.tanh(self._norm(self._hidden[0](inputs)))
        for layer in self._hidden[1:]:
            x = layer(x)
        return self._out(x)


def copy_every(
    period: int, update: tf.Tensor, sources: Sequence[tf.Variable], targets: Sequence[tf.Variable]
) -> None:
    """Copies the sources to the targets after update 0, `period`, 2 `period`, ...

    Args:
        period: Updates between copies.
        update: int32, the number of the update just made.
        sources, targets: Pairs, in the same order.
    """

    def copy() -> tf.Tensor:
        follow(1.0, sources, targets)
        return tf.constant(True)

    tf.cond(update % period == 0, copy, lambda: tf.constant(False))


def follow(rate: float, sources: Sequence[tf.Variable], targets: Sequence[tf.Variable]) -> None:
    """Moves each target towards its source: t <- (1 - rate) t + rate s."""
    for source, target in zip(sources, targets, strict=True):
        value = tf.convert_to_tensor(source)
        target.assign(value if rate == 1.0 else target + rate * (value - target))
