"""The head that predicts states from embeddings: its layers and its standard deviations."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from rounding import rounding_error

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


def test_a_start_below_the_least_is_refused() -> None:
    with pytest.raises(ValueError, match="init_std should be above min_std"):
        make(init_std=0.01)


def test_gradients_in_bfloat16_are_those_of_float32() -> None:
    """Of outputs that all pull the same way, over many rows: no sum over them is lost."""
    inputs = tf.abs(tf.random.stateless_normal([3000, 6], [0, 1]))
    found, weights = [], None
    for dtype in ("float32", "mixed_bfloat16"):
        head = make(dtype=keras.DTypePolicy(dtype))
        weights = weights or head.get_weights()
        head.set_weights(weights)
        with tf.GradientTape() as tape:
            mean, std = head(tf.cast(inputs, head.compute_dtype))
            loss = tf.reduce_sum(mean) + tf.reduce_sum(std)
        found.append(tape.gradient(loss, head.trainable_variables))
    for exact, rounded in zip(*found, strict=True):
        error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
        # Backwards and forwards through one layer: two factors, product, bias and ELU are rounded.
        assert error < rounding_error("bfloat16", 10)
