"""Layers that several modules share: MLP and a fast transposed convolution."""

from __future__ import annotations

import keras
import tensorflow as tf


class MLP(keras.layers.Layer):
    """Dense layers with ELU, then a linear output in float32.

    Args:
        layers: Number of hidden layers.
        units: Width of each.
        outputs: Size of the output.

    Input shape: [N, inputs]. Output shape: float32 [N, outputs].
    """

    def __init__(self, layers: int, units: int, outputs: int, **kwargs):
        super().__init__(**kwargs)
        self._hidden = [
            keras.layers.Dense(units, activation="elu", dtype=self.dtype_policy, name=f"dense{i}")
            for i in range(layers)
        ]
        self._out = keras.layers.Dense(outputs, dtype=self.dtype_policy, name="out")
        self._units = units

    def build(self, input_shape):
        size = input_shape[-1]
        for layer in self._hidden:
            layer.build((None, size))
            size = self._units
        self._out.build((None, size))
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        x = inputs
        for layer in self._hidden:
            x = layer(x)
        return tf.cast(self._out(x), tf.float32)


class TransposedConv(keras.layers.Layer):
    """Transposed convolution with stride 2 and valid padding, computed without one.

    The same function, weights and initialisation as ``keras.layers.Conv2DTranspose(filters,
    kernel, 2)``, in one of two exact rewrites that CPUs run several times faster:

    - a 1x1 input touches each output pixel once, so the layer is one matrix product;
    - otherwise output pixels of the four parities (row, column odd or even) are each an ordinary
      convolution of the input, so the layer is one 3x3 convolution to 4*filters channels whose
      result is interleaved (depth to space). An odd kernel is padded by a zero row and column.

    Args:
        filters: Output channels.
        kernel: Kernel size, 5 or 6.
        activation: "relu" or None.

    Input shape: [N, h, w, c]. Output shape: [N, 2h - 2 + kernel, 2w - 2 + kernel, filters].
    """

    def __init__(self, filters: int, kernel: int, activation: str | None = None, **kwargs):
        super().__init__(**kwargs)
        if kernel not in (5, 6):
            raise ValueError(f"TransposedConv has kernels of 5 or 6, but got {kernel}")
        self._filters, self._size = filters, kernel
        self._activation = keras.activations.get(activation)

    def build(self, input_shape):
        shape = (self._size, self._size, self._filters, input_shape[-1])
        self.kernel = self.add_weight(shape=shape, initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=(self._filters,), initializer="zeros", name="bias")
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        kernel = tf.cast(self.kernel, self.compute_dtype)
        bias = tf.cast(self.bias, self.compute_dtype)
        if tuple(inputs.shape[1:3]) == (1, 1):
            return self._as_matmul(inputs, kernel, bias)
        return self._as_convolution(inputs, kernel, bias)

    def _as_matmul(self, inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        k, filters, channels = self._size, self._filters, inputs.shape[-1]
        weights = tf.reshape(tf.transpose(kernel, [3, 0, 1, 2]), [channels, k * k * filters])
        flat = tf.reshape(inputs, [-1, channels]) @ weights
        x = tf.nn.bias_add(tf.reshape(flat, [-1, k, k, filters]), bias)
        return self._activation(x)  # [N, k, k, filters]

    def _as_convolution(self, inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        odd = self._size % 2
        kernel = tf.pad(kernel, [[0, odd], [0, odd], [0, 0], [0, 0]])
        filters, channels = self._filters, inputs.shape[-1]
        # Output pixel 2i + p sums inputs i - d over d = 0..2 with tap 2d + p; a convolution walks
        # its window forwards, so d runs backwards in its kernel.
        taps = tf.reshape(kernel, [3, 2, 3, 2, filters, channels])[::-1, :, ::-1]
        weights = tf.transpose(taps, [0, 2, 5, 1, 3, 4])  # [d, e, channels, p, q, filters]
        weights = tf.reshape(weights, [3, 3, channels, 4 * filters])
        # Padded apart: with the padding as the convolution's own, oneDNN has no bfloat16 gradient.
        padded = tf.pad(inputs, [[0, 0], [2, 2], [2, 2], [0, 0]])
        x = tf.nn.bias_add(tf.nn.conv2d(padded, weights, 1, "VALID"), tf.tile(bias, [4]))
        x = tf.nn.depth_to_space(self._activation(x), 2)
        return x[:, :-1, :-1] if odd else x  # [N, 2h - 2 + kernel, 2w - 2 + kernel, filters]
