"""The decoder's layers are the published ones; means and densities."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from dreamer.nets.decoder import Decoder
from dreamer.nets.layer_style import LayerStyle

IMAGE = (64, 64, 3)


def make(shapes, depth: int = 2, feat: int = 9, **kwargs) -> Decoder:
    decoder = Decoder(shapes, cnn_depth=depth, mlp_layers=1, mlp_units=7, **kwargs)
    decoder.build((None, feat))
    return decoder


def feats(n: int = 3, size: int = 9) -> tf.Tensor:
    return tf.random.stateless_normal([n, size], [0, 1])


def test_published_layers() -> None:
    """Dense 1024, then transposed convolutions 128, 64, 32, 3 of kernels 5, 5, 6, 6."""
    decoder = make({"image": IMAGE}, depth=32, feat=230)
    expected = [
        (230, 1024), (1024,),
        (5, 5, 128, 1024), (128,), (5, 5, 64, 128), (64,), (6, 6, 32, 64), (32,), (6, 6, 3, 32),
        (3,),
    ]  # fmt: skip
    assert [tuple(v.shape) for v in decoder.trainable_variables] == expected
    assert decoder(feats(2, 230))["image"].shape == (2, 64, 64, 3)


def test_images_are_keras_layers_in_a_row() -> None:
    decoder = make({"image": IMAGE})
    weights = decoder.trainable_variables
    dense = keras.layers.Dense(64)
    convs = [
        keras.layers.Conv2DTranspose(f, k, 2, activation=a)
        for f, k, a in ((8, 5, "relu"), (4, 5, "relu"), (2, 6, "relu"), (3, 6, None))
    ]
    twin = keras.Sequential([dense, keras.layers.Reshape((1, 1, 64)), *convs])
    twin.build((None, 9))
    for theirs, ours in zip(twin.trainable_variables, weights, strict=True):
        theirs.assign(ours)
    np.testing.assert_allclose(decoder(feats())["image"], twin(feats()), rtol=1e-4, atol=1e-5)


def test_images_of_dreamer_v3_are_keras_layers_in_a_row() -> None:
    """Each hidden layer has an RMS norm and SiLU, the projection to 4x4 too; a sigmoid ends it."""
    style = LayerStyle("silu", "rms", "trunc_normal")
    decoder, layers = make({"image": IMAGE}, cnn="v3", style=style), keras.layers

    def normed(*before: keras.layers.Layer) -> list[keras.layers.Layer]:
        return [*before, layers.RMSNormalization(epsilon=1e-4), layers.Activation("silu")]

    twin = keras.Sequential([
        *normed(layers.Dense(4 * 4 * 8), layers.Reshape((4, 4, 8))),
        *(layer for f in (8, 6, 4) for layer in normed(layers.Conv2DTranspose(f, 5, 2, "same"))),
        layers.Conv2DTranspose(3, 5, 2, "same", activation="sigmoid"),
    ])  # fmt: skip
    twin.build((None, 9))
    rng = np.random.default_rng(0)
    for theirs, ours in zip(twin.trainable_variables, decoder.trainable_variables, strict=True):
        ours.assign(rng.normal(0.1, 0.4, ours.shape).astype(np.float32))
        theirs.assign(ours)
    image = decoder(feats())["image"]
    assert image.shape == (3, *IMAGE)
    np.testing.assert_allclose(image, twin(feats()) - 0.5, rtol=1e-3, atol=1e-4)


def test_several_images_share_the_last_layer_and_vectors_an_mlp() -> None:
    shapes = {"rgb": IMAGE, "depth": (64, 64, 1), "joints": (4,), "arm": (2,)}
    decoder = make(shapes)
    means = decoder(feats())
    assert {k: tuple(v.shape) for k, v in means.items()} == {k: (3, *s) for k, s in shapes.items()}
    assert all(v.dtype == tf.float32 for v in means.values())


@pytest.mark.parametrize("shapes", [{"image": IMAGE}, {"a": (2,), "b": (3,)}])
def test_log_prob_is_a_unit_normals(shapes) -> None:
    decoder = make(shapes)
    means = decoder(feats())
    rng = np.random.default_rng(0)
    obs = {k: rng.normal(size=(3, *s)).astype(np.float32) for k, s in shapes.items()}
    actual = decoder.log_prob(feats(), obs)
    assert actual.keys() == shapes.keys()
    for key, shape in shapes.items():
        squares = ((obs[key] - means[key].numpy()) ** 2).reshape(3, -1).sum(-1)
        expected = -0.5 * squares - 0.5 * math.prod(shape) * math.log(2 * math.pi)
        np.testing.assert_allclose(actual[key], expected, rtol=1e-5)


@pytest.mark.parametrize("cnn", ["worldmodels", "v3"])
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_answers_in_float32(precision: str, cnn: str) -> None:
    shapes = {"image": IMAGE, "joints": (4,)}
    style, policy = LayerStyle(norm="rms"), keras.DTypePolicy(precision)
    decoder = make(shapes, cnn=cnn, style=style, dtype=policy)
    assert {v.dtype for v in decoder(feats()).values()} == {tf.float32}
    log_probs = decoder.log_prob(feats(), {k: tf.zeros([3, *s]) for k, s in shapes.items()})
    assert {v.dtype for v in log_probs.values()} == {tf.float32}
