"""The contrastive objective against literal loops over shifted sequences."""

import math

import numpy as np
import pytest
import tensorflow as tf

from dreamer.ops.contrast import contrastive_loss, pairwise_log_prob

B, T, F = 5, 7, 4


def draw(seed: int, smallest: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    feat, mean = rng.normal(size=(2, B, T, F)).astype(np.float32)
    return feat, mean, rng.uniform(smallest, 2.0, (B, T, F)).astype(np.float32)


def normal_log_prob(x, mean, std):
    x, mean, std = (a.astype(np.float64) for a in (x, mean, std))
    parts = -0.5 * ((x - mean) / std) ** 2 - np.log(std) - 0.5 * math.log(2 * math.pi)
    return parts.sum(-1)


def rows(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1, array.shape[-1])


@pytest.mark.parametrize("smallest", [0.3, 0.01])
def test_every_pair(smallest: float) -> None:
    feat, mean, std = map(rows, draw(0, smallest))
    feat, mean, std = 10.0 * feat, 10.0 * mean[:11], std[:11]  # far from zero, where it cancels
    actual = pairwise_log_prob(feat, mean, std)
    assert actual.shape == (35, 11) and actual.dtype == tf.float32
    for i in range(35):
        for j in range(11):
            expected = normal_log_prob(feat[i], mean[j], std[j])
            np.testing.assert_allclose(actual[i, j], expected, rtol=2e-6, atol=1e-4)


def literal_loss(feat, mean, std, batch_shifts: int, time_shifts: int, held: str) -> float:
    """Mean over B and T of log sum over the shifts, one Normal at a time, minus the unshifted."""
    terms = []
    for i in range(batch_shifts):
        for j in range(time_shifts):
            def shift(x, i=i, j=j):
                return np.roll(x, (i, j), (0, 1))

            if held == "state":  # the paper: other observations
                terms.append(normal_log_prob(feat, shift(mean), shift(std)))
            else:  # TF1: other features
                terms.append(normal_log_prob(shift(feat), mean, std))
    total = np.log(np.sum(np.exp(terms), 0))
    return float((total - terms[0]).mean())


@pytest.mark.parametrize("window", [(1, 1), (2, 3), (3, 1), (1, 7), (5, 7)])
def test_both_orientations_are_the_literal_loops(window: tuple[int, int]) -> None:
    feat, mean, std = draw(1)
    log_prob = pairwise_log_prob(rows(feat), rows(mean), rows(std))
    for held, matrix in (("state", log_prob), ("embedding", tf.transpose(log_prob))):
        actual = contrastive_loss(matrix, B, T, *window)
        expected = literal_loss(feat, mean, std, *window, held)
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    if window == (1, 1):
        assert float(actual) == 0.0  # the positive alone


def test_a_window_beyond_the_batch_is_the_batch() -> None:
    log_prob = pairwise_log_prob(*map(rows, draw(3)))
    whole = contrastive_loss(log_prob, B, T, B, T)
    np.testing.assert_array_equal(contrastive_loss(log_prob, B, T, 10, 30), whole)


def test_knowing_nothing_and_everything() -> None:
    nothing = contrastive_loss(tf.fill([B * T, B * T], -3.0), B, T, 2, 3)
    np.testing.assert_allclose(nothing, math.log(6), rtol=1e-6)
    everything = contrastive_loss(1e4 * tf.eye(B * T), B, T, 5, 7)
    np.testing.assert_allclose(everything, 0.0, atol=1e-6)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="log_prob should have shape"):
        contrastive_loss(tf.zeros([4, 4]), 2, 3, 1, 1)
    with pytest.raises(ValueError, match="points should have shape"):
        pairwise_log_prob(tf.zeros([4, 2]), tf.zeros([4, 3]), tf.ones([4, 3]))
