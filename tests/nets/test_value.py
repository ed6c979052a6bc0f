"""The value network: published layers, and a Normal with unit variance."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from dreamer.config.config import load_config
from dreamer.nets.value import Value


def test_published_layers() -> None:
    head = Value(**load_config().section("value"))
    head.build((None, 230))
    kernels = [tuple(v.shape) for v in head.trainable_variables if len(v.shape) == 2]
    assert kernels == [(230, 400), *[(400, 400)] * 2, (400, 1)]


def test_density_and_mean() -> None:
    head = Value(layers=1, units=4)
    head.build((None, 5))
    feat, target = tf.random.stateless_normal([6, 5], [0, 1]), np.linspace(-2, 2, 6)
    mean = head(feat)
    assert mean.shape == (6,) and mean.dtype == tf.float32
    dist = head.dist(feat)
    np.testing.assert_array_equal(dist.mean(), mean)
    expected = -0.5 * (target - mean.numpy()) ** 2 - 0.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(dist.log_prob(target.astype(np.float32)), expected, rtol=1e-5)
