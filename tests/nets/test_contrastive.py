"""The head that predicts states from embeddings: its layers and its standard deviations."""

import keras
import numpy as np
import tensorflow as tf
from small_agent import make_agent

from dreamer.nets.contrastive import Contrastive


def make(**settings) -> Contrastive:
    settings = {"layers": 1, "units": 8, "init_std": 1.0, "min_std": 0.01, **settings}
    head = Contrastive(5, **settings)
    head.build((None, 6))
    return head


def test_published_layers() -> None:
    head = Contrastive(230, layers=3, units=400, init_std=1.0, min_std=0.01)
    head.build((None, 1024))
    kernels = [tuple(v.shape) for v in head.trainable_variables if len(v.shape) == 2]
    assert kernels == [(1024, 400), (400, 400), (400, 400), (400, 460)]


def test_stds_start_at_one_and_stay_above_the_least() -> None:
    head = make()
    mean, std = head(tf.zeros([3, 6]))  # all layers give zero: biases start there
    np.testing.assert_array_equal(mean, np.zeros((3, 5)))
    np.testing.assert_allclose(std, np.ones((3, 5)), rtol=1e-6)
    head.trainable_variables[-1].assign(np.float32([0.0] * 5 + [-50.0] * 5))
    np.testing.assert_allclose(head(tf.zeros([3, 6]))[1], np.full((3, 5), 0.01), rtol=1e-6)


def test_outputs_are_float32_in_mixed_precision() -> None:
    head = make(dtype=keras.DTypePolicy("mixed_bfloat16"))
    assert {x.dtype for x in head(tf.ones([3, 6], tf.bfloat16))} == {tf.float32}


def test_hidden_layers_have_the_style_of_all_networks() -> None:
    model = make_agent(
        preset="contrastive", layers__norm="rms", layers__activation="silu", contrastive__layers=2
    ).world_model
    head = model.representation
    kernel, bias, norm, *_ = (v.numpy().astype(np.float64) for v in head.trainable_variables)
    embed = np.random.default_rng(0).normal(size=(5, model.encoder.size))
    x = embed @ kernel + bias
    x = norm * x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4)
    expected = x / (1.0 + np.exp(-x))
    np.testing.assert_allclose(head._dense[0](embed.astype(np.float32)), expected, rtol=1e-4)
    assert len(head.trainable_variables) == 3 + 3 + 2
