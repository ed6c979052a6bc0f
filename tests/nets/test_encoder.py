"""The encoder's layers are the published ones; its inputs and its output."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dreamer.nets.encoder import Encoder
from dreamer.nets.layer_style import LayerStyle

IMAGE = (64, 64, 3)
SHAPES = {"image": IMAGE}


def make(shapes, depth: int = 2, layers: int = 2, units: int = 7, **kwargs) -> Encoder:
    encoder = Encoder(shapes, cnn_depth=depth, mlp_layers=layers, mlp_units=units, **kwargs)
    encoder.build()
    return encoder


def observations(shapes, n: int = 3, seed: int = 0):
    rng = np.random.default_rng(seed)
    return {k: tf.constant(rng.normal(size=(n, *s)), tf.float32) for k, s in shapes.items()}


def shapes_of(layer) -> list[tuple[int, ...]]:
    return [tuple(v.shape) for v in layer.trainable_variables]


def test_published_convolutions() -> None:
    """32, 64, 128, 256 channels of kernel 4 and stride 2 turn 64x64x3 into 2x2x256 = 1024."""
    encoder = make({"image": IMAGE}, depth=32)
    kernels = [(4, 4, 3, 32), (4, 4, 32, 64), (4, 4, 64, 128), (4, 4, 128, 256)]
    biases = [(k[-1],) for k in kernels]
    assert shapes_of(encoder) == [s for pair in zip(kernels, biases, strict=True) for s in pair]
    assert encoder.size == 1024
    assert encoder({"image": tf.zeros([2, *IMAGE])}).shape == (2, 1024)


def literal_conv(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Stride 2, valid padding."""
    n, h, w, _ = x.shape
    size = len(kernel)
    out = np.zeros((n, (h - size) // 2 + 1, (w - size) // 2 + 1, kernel.shape[-1]))
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            window = x[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size]
            out[:, i, j] = np.tensordot(window, kernel, 3)
    return out + bias


def test_convolutions_are_literal_ones() -> None:
    shapes = {"image": IMAGE}
    encoder, obs = make(shapes), observations({"image": IMAGE}, n=2)
    x = obs["image"].numpy()
    variables = [v.numpy() for v in encoder.trainable_variables]
    for kernel, bias in zip(variables[::2], variables[1::2], strict=True):
        x = np.maximum(literal_conv(x, kernel, bias), 0.0)
    np.testing.assert_allclose(encoder(obs), x.reshape(2, -1), rtol=1e-4, atol=1e-5)


def test_convolutions_of_dreamer_v3_are_literal_ones() -> None:
    """Kernel 5, padded by 1 and 2 pixels, RMS norm and SiLU, to 4x4."""
    style = LayerStyle("silu", "rms", "trunc_normal")
    encoder, obs = make(SHAPES, cnn="v3", style=style), observations(SHAPES, n=2)
    assert encoder.size == 4 * 4 * 4 * 2
    x, variables = obs["image"].numpy(), [v.numpy() for v in encoder.trainable_variables]
    assert [v.shape for v in variables[::3]] == [
        (5, 5, 3, 4), (5, 5, 4, 6), (5, 5, 6, 8), (5, 5, 8, 8)
    ]  # fmt: skip
    for kernel, bias, scale in zip(*(variables[i::3] for i in range(3)), strict=True):
        x = literal_conv(np.pad(x, [(0, 0), (1, 2), (1, 2), (0, 0)]), kernel, bias)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4) * scale
        x = x / (1 + np.exp(-x))
    np.testing.assert_allclose(encoder(obs), x.reshape(2, -1), rtol=1e-3, atol=1e-4)


def test_vectors_go_through_one_mlp_in_the_order_of_their_names() -> None:
    shapes = {"zeta": (2,), "alpha": (3,)}
    encoder, obs = make(shapes), observations(shapes)
    assert shapes_of(encoder) == [(5, 7), (7,), (7, 7), (7,)] and encoder.size == 7
    x = np.concatenate([obs["alpha"], obs["zeta"]], -1)
    w0, b0, w1, b1 = (v.numpy() for v in encoder.trainable_variables)
    for w, b in ((w0, b0), (w1, b1)):
        x = x @ w + b
        x = np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    np.testing.assert_allclose(encoder(obs), x, rtol=1e-5, atol=1e-6)


def test_without_layers_vectors_pass_as_they_are() -> None:
    shapes = {"b": (2,), "a": (3,)}
    encoder, obs = make(shapes, layers=0), observations(shapes)
    assert encoder.size == 5
    np.testing.assert_array_equal(encoder(obs), np.concatenate([obs["a"], obs["b"]], -1))


def test_images_and_vectors_are_joined() -> None:
    shapes = {"image": IMAGE, "depth": (64, 64, 1), "joints": (4,)}
    encoder, obs = make(shapes), observations(shapes)
    assert shapes_of(encoder)[0] == (4, 4, 4, 2)  # the channels of both images
    assert encoder.size == 2 * 32 + 7
    embed = encoder(obs)
    assert embed.shape == (3, encoder.size)
    other = encoder({**obs, "joints": obs["joints"] + 1.0})
    np.testing.assert_array_equal(embed[:, :64], other[:, :64])
    assert (embed[:, 64:] != other[:, 64:]).numpy().any(-1).all()
    for key in ("image", "depth"):
        changed = encoder({**obs, key: obs[key] + 1.0})
        assert (embed[:, :64] != changed[:, :64]).numpy().any(-1).all()


@pytest.mark.parametrize("cnn", ["worldmodels", "v3"])
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_embeds_in_the_compute_dtype(precision: str, cnn: str) -> None:
    shapes = {"image": IMAGE, "joints": (4,)}
    policy = keras.DTypePolicy(precision)
    encoder = make(shapes, cnn=cnn, style=LayerStyle(norm="rms"), dtype=policy)
    embed = encoder(observations(shapes))
    assert embed.dtype == policy.compute_dtype
    assert all(v.dtype == "float32" for v in encoder.variables)
