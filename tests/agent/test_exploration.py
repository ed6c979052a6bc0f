"""Exploration noise against its definition."""

import numpy as np
import pytest
import tensorflow as tf

from dreamer.agent.exploration import Exploration
from dreamer.envs.spec import Space, one_hot_space
from dreamer.errors import UserError

CONTINUOUS = Space((2,), np.dtype(np.float32), -1.0, 1.0)
ONEHOT = Space((4,), np.dtype(np.float32), 0.0, 1.0, discrete=True)
SEEDS = [tf.constant([1, 2]), tf.constant([3, 4])]


def test_gaussian_noise_has_its_spread_and_stays_in_range():
    action = tf.zeros([20000, 2])
    noisy = Exploration(CONTINUOUS, kind="auto", noise_scale=0.3)(action, 0.3, SEEDS).numpy()
    assert abs(noisy.mean()) < 0.01
    assert abs(noisy.std() - 0.3) < 0.01
    wild = Exploration(CONTINUOUS, kind="gaussian", noise_scale=50.0)(action, 50.0, SEEDS).numpy()
    assert wild.min() == -1.0 and wild.max() == 1.0


def test_epsilon_replaces_that_share_of_one_hot_actions_uniformly():
    action = tf.one_hot(tf.zeros([20000], tf.int32), 4)
    noisy = Exploration(ONEHOT, kind="auto", noise_scale=0.4)(action, 0.4, SEEDS).numpy()
    assert set(np.unique(noisy)) == {0.0, 1.0} and (noisy.sum(-1) == 1).all()
    # A quarter of the replaced ones fall on the same action again.
    np.testing.assert_allclose(noisy.mean(0), [0.7, 0.1, 0.1, 0.1], atol=0.01)


def test_each_of_several_one_hot_vectors_is_drawn_uniformly():
    action = tf.tile([[1.0, 0.0, 1.0, 0.0, 0.0]], [20000, 1])
    noisy = Exploration(one_hot_space(2, 3), kind="auto", noise_scale=0.6)(action, 0.6, SEEDS)
    np.testing.assert_allclose(np.mean(noisy, 0), [0.7, 0.3, 0.6, 0.2, 0.2], atol=0.01)
    assert np.all(np.sum(noisy[:, :2], 1) == 1) and np.all(np.sum(noisy[:, 2:], 1) == 1)


def test_epsilon_on_continuous_actions_draws_from_the_whole_range():
    action = tf.fill([20000, 2], 0.5)
    noisy = Exploration(CONTINUOUS, kind="epsilon", noise_scale=0.25)(action, 0.25, SEEDS).numpy()
    replaced = (noisy != 0.5).all(-1)
    assert abs(replaced.mean() - 0.25) < 0.01
    assert abs(noisy[replaced].mean()) < 0.03 and noisy[replaced].std() > 0.5


def test_none_leaves_actions_alone():
    action = tf.constant([[0.1, -0.2]])
    explored = Exploration(CONTINUOUS, kind="none", noise_scale=0.3)(action, 0.3, SEEDS)
    np.testing.assert_array_equal(explored, action)


def test_gaussian_noise_on_one_hot_actions_is_refused():
    with pytest.raises(UserError, match="one-hot"):
        Exploration(ONEHOT, kind="gaussian", noise_scale=0.3)


def test_random_actions_are_uniform_whatever_the_policy_says():
    action = tf.fill([20000, 2], 0.9)
    drawn = Exploration(CONTINUOUS, kind="random", noise_scale=0.0)(action, 0.0, SEEDS).numpy()
    assert (drawn != 0.9).all() and np.abs(drawn).max() <= 1.0
    np.testing.assert_allclose(drawn.mean(0), 0.0, atol=0.02)
    np.testing.assert_allclose(drawn.std(0), 1 / np.sqrt(3), atol=0.02)
    action = tf.one_hot(tf.zeros([20000], tf.int32), 4)
    drawn = Exploration(ONEHOT, kind="random", noise_scale=0.0)(action, 0.0, SEEDS).numpy()
    np.testing.assert_allclose(drawn.mean(0), 0.25, atol=0.02)


@pytest.mark.parametrize("unit", ["steps", "updates"])
def test_the_amount_falls_linearly_in_its_unit_and_then_stays(unit: str):
    values = {"noise_scale": 0.4, "final": 0.1, "decay_steps": 200}
    explore = Exploration(ONEHOT, kind="auto", unit=unit, **values)

    def noise_scale(count: int) -> float:
        return explore.noise_scale(count, 7) if unit == "steps" else explore.noise_scale(7, count)

    found = [noise_scale(count) for count in (0, 50, 100, 200, 201, 10**9)]
    np.testing.assert_allclose(found, [0.4, 0.325, 0.25, 0.1, 0.1, 0.1])


def test_without_a_length_the_amount_stays():
    explore = Exploration(CONTINUOUS, kind="auto", noise_scale=0.3, final=0.1, decay_steps=0)
    assert {explore.noise_scale(step, step) for step in (0, 1, 10**6)} == {0.3}


@pytest.mark.parametrize(
    "values", [{"noise_scale": 1.5}, {"noise_scale": 0.5, "final": 2.0, "decay_steps": 10}]
)
def test_an_epsilon_that_is_no_probability_is_refused(values):
    with pytest.raises(UserError, match="between 0 and 1"):
        Exploration(ONEHOT, kind="auto", **values)
