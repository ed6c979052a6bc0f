"""Layers that several networks use: dense, convolutions, MLP, a fast transposed convolution."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from dreamer.nets.layer_style import PUBLISHED, LayerStyle, NormActivation
from dreamer.ops.affine import affine


class Dense(keras.layers.Dense):
    """Keras's Dense, with a bias gradient that is right in bfloat16; see `add_bias`."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        dtype = self.compute_dtype
        return self.activation(affine(inputs, self.kernel, self.bias, dtype, dtype))


class HiddenDense(Dense):
    """A dense layer of a style; ELU unless the style has another activation.

    Args:
        units: Width.
        style: Norm, activation and initial weights.
    """

    def __init__(self, units: int, style: LayerStyle = PUBLISHED, **kwargs: Any):
        super().__init__(units, kernel_initializer=style.initializer(), **kwargs)
        self._finish = NormActivation(style, "elu", dtype=self.dtype_policy, name="finish")

    def build(self, input_shape):
        super().build(input_shape)
        self._finish.build((None, self.units))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self._finish(super().call(inputs))


class Conv(keras.layers.Conv2D):
    """A strided convolution of a style; ReLU unless the style has another activation.

    Its bias gradient is right in bfloat16; see `add_bias`.

    Args:
        filters: Output channels.
        kernel, stride: Sizes of both.
        style: Norm, activation and initial weights.
    """

    def __init__(
        self, filters: int, kernel: int, stride: int, style: LayerStyle = PUBLISHED, **kwargs: Any
    ):
        start = style.initializer()
        super().__init__(filters, kernel, stride, kernel_initializer=start, **kwargs)
        self._finish = NormActivation(style, "relu", dtype=self.dtype_policy, name="finish")

    def build(self, input_shape):
        super().build(input_shape)
        self._finish.build((None, self.filters))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        kernel = tf.cast(self.kernel, self.compute_dtype)
        x = tf.nn.conv2d(inputs, kernel, self.strides, self.padding.upper())
        return self._finish(add_bias(x, self.bias))


def add_bias(x: tf.Tensor, bias: tf.Variable) -> tf.Tensor:
    """Adds a bias [C] to [..., C].

    Keras's own layers call tf.nn.bias_add, whose gradient sums bfloat16 in bfloat16 on CPUs
    (TensorFlow 2.21). Over the pixels of a batch such a sum stops growing at a hundredth of its
    value.
    """
    return x + tf.cast(bias, x.dtype)


class MLP(keras.layers.Layer):
    """Hidden layers, then a linear output that is computed in float32 in every precision.

    bfloat16 has no numbers between 128 and 129. A value network whose last product is rounded to
    bfloat16 could not tell states with such returns apart.

    Args:
        layers: Number of hidden layers.
        units: Width of each.
        outputs: Size of the output.
        out_scale: Factor of the output's initial weights.
        style: Of the hidden layers.

    Input shape: [N, inputs]. Output shape: float32 [N, outputs].
    """

    def __init__(
        self, layers: int, units: int, outputs: int, out_scale: float = 1.0,
        style: LayerStyle = PUBLISHED, **kwargs: Any,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self._dense: list[Dense] = [
            HiddenDense(units, style, dtype=self.dtype_policy, name=f"dense{i}")
            for i in range(layers)
        ]
        start = style.initializer(out_scale)
        out = Dense(outputs, kernel_initializer=start, dtype="float32", name="out")
        self._dense.append(out)

    def build(self, input_shape):
        size = input_shape[-1]
        for layer in self._dense:
            layer.build((None, size))
            size = layer.units
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        x = inputs
        for layer in self._dense:
            x = layer(x)
        return x


class TransposedConv(keras.layers.Layer):
    """Transposed convolution with stride 2, by the fastest exact way.

    Function, weights and initialisation are those of ``keras.layers.Conv2DTranspose(filters,
    kernel, 2, padding)``. On CPUs two of the decoder's four layers are several times faster another
    way:

    - from a 1x1 input each output pixel has one term, so that layer is one matrix product;
    - a layer with few filters (the last one) is `narrow_transposed_conv`.

    Args:
        filters: Output channels.
        kernel: Kernel size, 5 or 6.
        style: Norm, activation (ReLU unless it has another) and initial weights.
        hidden: Whether norm and activation follow.
        padding: "valid"; or "same", which crops the output to twice the input's size.

    Input shape: [N, h, w, c]. Output shape: [N, 2h - 2 + kernel, 2w - 2 + kernel, filters], or
    [N, 2h, 2w, filters].
    """

    def __init__(
        self, filters: int, kernel: int, style: LayerStyle = PUBLISHED, hidden: bool = True,
        padding: str = "valid", **kwargs: Any,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.filters, self._size, self._style = filters, kernel, style
        self._same = padding == "same"
        self._finish: keras.layers.Layer | None = None
        if hidden:
            self._finish = NormActivation(style, "relu", dtype=self.dtype_policy, name="finish")

    def build(self, input_shape):
        shape = (self._size, self._size, self.filters, input_shape[-1])
        start = self._style.initializer(1.0, inputs=(0, 1, 3), outputs=(0, 1, 2))
        self.kernel = self.add_weight(shape=shape, initializer=start, name="kernel")
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")
        if self._finish:
            self._finish.build((None, self.filters))
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        kernel = tf.cast(self.kernel, self.compute_dtype)
        _, height, width, channels = inputs.shape
        if (height, width) == (1, 1) and not self._same:
            weights = tf.reshape(tf.transpose(kernel, [3, 0, 1, 2]), [channels, -1])
            flat = tf.reshape(inputs, [-1, channels]) @ weights
            x = tf.reshape(flat, [-1, self._size, self._size, self.filters])
        elif self.filters < _NARROW:
            x = narrow_transposed_conv(inputs, kernel)
            if self._same:
                before = (self._size - 2) // 2
                x = x[:, before : before + 2 * height, before : before + 2 * width]
        else:
            more = 0 if self._same else self._size - 2
            shape = [tf.shape(inputs)[0], 2 * height + more, 2 * width + more, self.filters]
            padding = "SAME" if self._same else "VALID"
            x = tf.nn.conv2d_transpose(inputs, kernel, shape, 2, padding)
        x = add_bias(x, self.bias)
        return self._finish(x) if self._finish else x


_NARROW = 16  # filters; from here on oneDNN's transposed convolution is as fast


@tf.custom_gradient
def narrow_transposed_conv(inputs: tf.Tensor, kernel: tf.Tensor):
    """Transposed convolution with stride 2 and valid padding, for few output channels.

    For each of the four parities (row and column odd or even) the output pixels are an ordinary
    convolution of the input. So the forward pass is one 3x3 convolution to 4*filters channels,
    whose result is interleaved (depth to space). The gradients are TensorFlow's own.

    Args:
        inputs: [N, h, w, c].
        kernel: [k, k, filters, c], k being 5 or 6.
    Returns:
        [N, 2h - 2 + k, 2w - 2 + k, filters].
    """
    size, _, filters, channels = kernel.shape
    odd = size % 2  # a kernel of 5 is one of 6 with a last row and column of zeros
    even_kernel = tf.pad(kernel, [[0, odd], [0, odd], [0, 0], [0, 0]])
    # Output pixel 2i + p sums inputs i - d over d = 0..2 with tap 2d + p; a convolution walks its
    # window forwards, so d runs backwards in its kernel.
    taps = tf.reshape(even_kernel, [3, 2, 3, 2, filters, channels])[::-1, :, ::-1]
    weights = tf.transpose(taps, [0, 2, 5, 1, 3, 4])  # [d, e, channels, p, q, filters]
    weights = tf.reshape(weights, [3, 3, channels, 4 * filters])
    padded = tf.pad(inputs, [[0, 0], [2, 2], [2, 2], [0, 0]])
    x = interleave(tf.nn.conv2d(padded, weights, 1, "VALID"))
    output = x[:, :-1, :-1] if odd else x

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        to_inputs = tf.nn.conv2d(upstream, kernel, 2, "VALID")
        to_kernel = tf.raw_ops.Conv2DBackpropFilter(
            input=upstream,
            filter_sizes=kernel.shape,
            out_backprop=inputs,
            strides=[1, 2, 2, 1],
            padding="VALID",
        )
        return to_inputs, to_kernel

    return output, gradient


def interleave(x: tf.Tensor) -> tf.Tensor:
    """tf.nn.depth_to_space(x, 2): [N, h, w, 4f] -> [N, 2h, 2w, f].

    It is a transposition, because depth_to_space runs on one thread.
    """
    _, h, w, channels = x.shape
    rows = tf.reshape(x, [-1, w, 2, channels // 2])  # [N*h, w, p, (q, f)]
    return tf.reshape(tf.transpose(rows, [0, 2, 1, 3]), [-1, 2 * h, 2 * w, channels // 4])
