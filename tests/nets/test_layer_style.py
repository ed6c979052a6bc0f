"""Norms, activations and initial weights of hidden layers against literal NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from rounding import rounding_error

from dreamer.nets.encoder import Encoder
from dreamer.nets.layer_style import LayerStyle
from dreamer.nets.layers import MLP, Conv, HiddenDense, TransposedConv

V3 = LayerStyle("silu", "rms", "trunc_normal")
NORMED = LayerStyle("elu", "layer")
IMAGES = {"image": (64, 64, 3)}


def silu(x):
    return x / (1 + np.exp(-x))


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def relu(x):
    return np.maximum(x, 0)


def rms_norm(x, scale):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4) * scale


def layer_norm(x, scale, offset):
    centered = x - x.mean(-1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-3) * scale + offset


# Each: affine result and the norm's variables -> the layer's output.
LITERAL = {V3: lambda x, s: silu(rms_norm(x, s)), NORMED: lambda x, *s: elu(layer_norm(x, *s))}
every_style = pytest.mark.parametrize("style", LITERAL, ids=lambda style: style.norm)


def randomize(layer: keras.layers.Layer) -> list[np.ndarray]:
    """Gives every variable, scales and biases too, values that show; returns them in float64."""
    rng = np.random.default_rng(0)
    for variable in layer.variables:
        variable.assign(rng.normal(0.2, 0.5, variable.shape).astype(np.float32))
    return [np.float64(v.numpy()) for v in layer.variables]


@every_style
def test_hidden_layers_are_affine_then_norm_then_activation(style: LayerStyle) -> None:
    x = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    dense = HiddenDense(5, style)
    dense.build((None, 4))
    kernel, bias, *norm = randomize(dense)
    expected = LITERAL[style](x @ kernel + bias, *norm)
    np.testing.assert_allclose(dense(x), expected, rtol=1e-4, atol=1e-5)


@every_style
def test_convolutions_norm_their_channels(style: LayerStyle) -> None:
    image = np.random.default_rng(1).normal(size=(2, 7, 7, 3)).astype(np.float32)
    conv, transposed = Conv(5, 4, 2, style), TransposedConv(5, 5, style)
    for layer, convolve in ((conv, tf.nn.conv2d), (transposed, None)):
        layer.build((None, 7, 7, 3))
        kernel, bias, *norm = randomize(layer)
        if convolve:
            affine = tf.nn.conv2d(image, np.float32(kernel), 2, "VALID")
        else:
            shape = [2, 17, 17, 5]
            affine = tf.nn.conv2d_transpose(image, np.float32(kernel), shape, 2, "VALID")
        expected = LITERAL[style](affine.numpy() + bias, *norm)
        np.testing.assert_allclose(layer(image), expected, rtol=1e-4, atol=1e-4)


@every_style
def test_an_mlps_output_stays_linear(style: LayerStyle) -> None:
    mlp = MLP(2, 5, 3, style=style)
    mlp.build((None, 4))
    variables = randomize(mlp)
    size = len(variables) // 2 - 1  # of a hidden layer
    x = expected = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    for kernel, bias, *norm in (variables[:size], variables[size : 2 * size]):
        expected = LITERAL[style](expected @ kernel + bias, *norm)
    kernel, bias = variables[2 * size :]
    np.testing.assert_allclose(mlp(x), expected @ kernel + bias, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@every_style
def test_mixed_precision_norms_in_float32(style: LayerStyle, precision: str) -> None:
    """Sums over 4000 numbers of bfloat16 are exact enough; so is the scale's gradient."""
    policy = keras.DTypePolicy(f"mixed_{precision}")
    low, full = HiddenDense(4000, style, dtype=policy), HiddenDense(4000, style)
    x, results, gradients = tf.random.stateless_normal([300, 8], [0, 1]), [], []
    for layer in (low, full):
        layer.build((None, 8))
        randomize(layer)
        with tf.GradientTape() as tape:
            result = layer(x)
            loss = 1e-3 * tf.reduce_sum(tf.square(tf.cast(result, tf.float32)))
        results.append(tf.cast(result, tf.float32))
        gradients.append(tape.gradient(loss, layer.trainable_variables))
    assert low(x).dtype == policy.compute_dtype and {v.dtype for v in low.variables} == {"float32"}
    limit = rounding_error(precision, 6)
    for mine, theirs in zip([results[0], *gradients[0]], [results[1], *gradients[1]], strict=True):
        assert np.linalg.norm(mine - theirs) <= limit * np.linalg.norm(theirs)


@pytest.mark.parametrize("activation", ["auto", "relu", "silu"])
def test_one_activation_replaces_both(activation: str) -> None:
    style, x = LayerStyle(activation), np.linspace(-2, 2, 5).astype(np.float32)
    dense, conv = HiddenDense(1, style), Conv(1, 1, 1, style)
    for layer, shape, default in ((dense, (1,), elu), (conv, (1, 1, 1), relu)):
        layer.build((None, *shape))
        layer.kernel.assign(tf.ones_like(layer.kernel))
        expected = {"auto": default, "relu": relu, "silu": silu}[activation](x)
        found = tf.reshape(layer(x.reshape(5, *shape)), [-1])
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def truncated_std(values: np.ndarray, inputs: int) -> None:
    """Checks a truncated normal of variance 1 / inputs, cut at 2 standard deviations."""
    assert values.std() == pytest.approx(inputs**-0.5, rel=0.05)
    before = inputs**-0.5 / 0.87962566
    assert 1.8 * before < np.abs(values).max() <= 2 * before * 1.0001


def test_initial_weights_have_the_variance_of_one_over_the_inputs() -> None:
    dense, conv = HiddenDense(200, V3), Conv(60, 4, 2, V3)
    transposed = TransposedConv(60, 5, V3)
    dense.build((None, 50))
    conv.build((None, 9, 9, 10))
    transposed.build((None, 9, 9, 10))
    truncated_std(dense.kernel.numpy(), 50)
    truncated_std(conv.kernel.numpy(), 4 * 4 * 10)
    truncated_std(transposed.kernel.numpy(), 5 * 5 * 10)


@pytest.mark.parametrize("init", ["glorot", "trunc_normal"])
def test_outputs_begin_smaller_by_their_scale(init: str) -> None:
    stds = []
    for scale in (1.0, 0.01, 0.0):
        mlp = MLP(0, 1, 300, scale, LayerStyle(init=init))
        mlp.build((None, 100))
        stds.append(mlp.variables[0].numpy().std())
    assert stds[1] == pytest.approx(0.01 * stds[0], rel=0.05) and stds[2] == 0


def test_an_encoder_norms_every_layer() -> None:
    encoder = Encoder({**IMAGES, "a": (3,)}, cnn_depth=2, mlp_layers=2, mlp_units=5, style=V3)
    encoder.build()
    scales = [tuple(v.shape) for v in encoder.variables if v.path.endswith("scale")]
    assert scales == [(2,), (4,), (8,), (16,), (5,), (5,)]
    paths = [v.path for v in encoder.variables]
    assert len(set(paths)) == len(paths)  # they name variables in checkpoints
