"""MLP against NumPy; the rewritten transposed convolution against Keras's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from rounding import UNIT

from dreamer.nets.layers import MLP, TransposedConv


def elu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def randomize(layer: keras.layers.Layer, seed: int = 0) -> None:
    """Gives every variable, biases too, values that show."""
    rng = np.random.default_rng(seed)
    for variable in layer.variables:
        variable.assign(rng.normal(0, 0.3, variable.shape).astype(np.float32))


def test_mlp_is_dense_elu_and_a_linear_end() -> None:
    mlp = MLP(2, 5, 3)
    mlp.build((None, 4))
    randomize(mlp)
    w0, b0, w1, b1, w2, b2 = (v.numpy() for v in mlp.variables)
    assert (w0.shape, w1.shape, w2.shape) == ((4, 5), (5, 5), (5, 3))
    x = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    expected = elu(elu(x @ w0 + b0) @ w1 + b1) @ w2 + b2
    np.testing.assert_allclose(mlp(x), expected, rtol=1e-5, atol=1e-6)


def keras_twin(layer: TransposedConv, filters: int, kernel: int, activation, padding: str, shape):
    twin = keras.layers.Conv2DTranspose(filters, kernel, 2, padding, activation=activation)
    twin.build((None, *shape))
    for ours, theirs in zip(layer.variables, twin.variables, strict=True):
        theirs.assign(ours)
    return twin


# The decoder's shapes and others, with few filters and with many: each way it is computed.
@pytest.mark.parametrize(("hidden", "padding"), [(True, "valid"), (False, "valid"), (True, "same")])
@pytest.mark.parametrize("kernel", [5, 6])
@pytest.mark.parametrize("shape", [(1, 1, 7), (5, 5, 4), (13, 13, 3), (4, 7, 2), (2, 1, 3)])
@pytest.mark.parametrize("filters", [3, 16])
def test_transposed_convolution_is_keras(filters, shape, kernel, hidden, padding) -> None:
    x = tf.random.stateless_normal([2, *shape], [0, 1])
    layer = TransposedConv(filters, kernel, hidden=hidden, padding=padding)
    layer.build((None, *shape))
    randomize(layer)
    twin = keras_twin(layer, filters, kernel, "relu" if hidden else None, padding, shape)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        actual, expected = layer(x), twin(x)
        direction = tf.random.stateless_normal(expected.shape, [0, 2])
        ours, theirs = tf.reduce_sum(actual * direction), tf.reduce_sum(expected * direction)
    more = kernel - 2 if padding == "valid" else 0
    assert actual.shape == (2, 2 * shape[0] + more, 2 * shape[1] + more, filters)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    for mine, other in zip([x, *layer.variables], [x, *twin.variables], strict=True):
        mine = mine if mine is x else mine.value
        other = other if other is x else other.value
        np.testing.assert_allclose(
            tape.gradient(ours, mine), tape.gradient(theirs, other), rtol=1e-3, atol=1e-3
        )


def test_transposed_convolution_starts_as_keras_does() -> None:
    shape = (3, 3, 64)
    ours, twin = TransposedConv(32, 5), keras.layers.Conv2DTranspose(32, 5, 2)
    ours.build((None, *shape))
    twin.build((None, *shape))
    mine, theirs = ours.kernel.numpy(), twin.kernel.numpy()
    assert np.abs(mine).max() == pytest.approx(np.abs(theirs).max(), rel=0.01)
    assert mine.std() == pytest.approx(theirs.std(), rel=0.05)
    assert not ours.bias.numpy().any()


@pytest.mark.parametrize("filters", [3, 16])
@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_transposed_convolution_in_mixed_precision(precision: str, size: int, filters: int) -> None:
    policy = keras.DTypePolicy(precision)
    low, full = TransposedConv(filters, 5, dtype=policy), TransposedConv(filters, 5)
    for layer in (low, full):
        layer.build((None, size, size, 8))
        randomize(layer)
    x = tf.random.stateless_normal([2, size, size, 8], [0, 1])
    with tf.GradientTape() as tape:
        result = low(x)
        loss = tf.reduce_sum(tf.cast(result, tf.float32))
    assert result.dtype == policy.compute_dtype
    assert all(np.isfinite(g).all() for g in tape.gradient(loss, low.trainable_variables))
    error = tf.abs(tf.cast(result, tf.float32) - full(x))
    for variable in full.variables:
        variable.assign(tf.abs(tf.convert_to_tensor(variable)))
    # Input, kernel, product and the sum with the bias are rounded, each by u of what is summed.
    assert (error <= 4.1 * UNIT[precision.removeprefix("mixed_")] * full(tf.abs(x))).numpy().all()
