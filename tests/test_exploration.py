"""Exploration noise against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.exploration import Exploration

CONTINUOUS = Space((2,), np.dtype(np.float32), -1.0, 1.0)
ONEHOT = Space((4,), np.dtype(np.float32), 0.0, 1.0, discrete=True)
SEEDS = [tf.constant([1, 2]), tf.constant([3, 4])]


def test_gaussian_noise_has_its_spread_and_stays_in_range():
    action = tf.zeros([20000, 2])
    noisy = Exploration(CONTINUOUS, kind="auto", amount=0.3)(action, SEEDS).numpy()
    assert abs(noisy.mean()) < 0.01
    assert abs(noisy.std() - 0.3) < 0.01
    wild = Exploration(CONTINUOUS, kind="gaussian", amount=50.0)(action, SEEDS).numpy()
    assert wild.min() == -1.0 and wild.max() == 1.0


def test_epsilon_replaces_that_share_of_one_hot_actions_uniformly():
    action = tf.one_hot(tf.zeros([20000], tf.int32), 4)
    noisy = Exploration(ONEHOT, kind="auto", amount=0.4)(action, SEEDS).numpy()
    assert set(np.unique(noisy)) == {0.0, 1.0} and (noisy.sum(-1) == 1).all()
    # A quarter of the replaced ones fall on the same action again.
    np.testing.assert_allclose(noisy.mean(0), [0.7, 0.1, 0.1, 0.1], atol=0.01)


def test_epsilon_on_continuous_actions_draws_from_the_whole_range():
    action = tf.fill([20000, 2], 0.5)
    noisy = Exploration(CONTINUOUS, kind="epsilon", amount=0.25)(action, SEEDS).numpy()
    replaced = (noisy != 0.5).all(-1)
    assert abs(replaced.mean() - 0.25) < 0.01
    assert abs(noisy[replaced].mean()) < 0.03 and noisy[replaced].std() > 0.5


def test_none_leaves_actions_alone():
    action = tf.constant([[0.1, -0.2]])
    explored = Exploration(CONTINUOUS, kind="none", amount=0.3)(action, SEEDS)
    np.testing.assert_array_equal(explored, action)


def test_gaussian_noise_on_one_hot_actions_is_refused():
    with pytest.raises(UserError, match="one-hot"):
        Exploration(ONEHOT, kind="gaussian", amount=0.3)
