"""The projection against the paper's loop, and what must hold of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from baselines.returns import atoms, project

Z = atoms(-2.0, 3.0, 11)


def literal(returns: np.ndarray, factor: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """arXiv 1707.06887, algorithm 1, line by line."""
    z = np.linspace(-2.0, 3.0, 11)
    spacing = 5.0 / 10
    result = np.zeros_like(probs)
    for row in range(len(probs)):
        for j in range(11):
            moved = min(max(returns[row] + factor[row] * z[j], -2.0), 3.0)
            b = (moved + 2.0) / spacing
            lower, upper = math.floor(b), math.ceil(b)
            if lower == upper:
                result[row, lower] += probs[row, j]
            else:
                result[row, lower] += probs[row, j] * (upper - b)
                result[row, upper] += probs[row, j] * (b - lower)
    return result


def random_rows(count: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    returns = rng.normal(scale=2, size=count).astype(np.float32)
    factor = rng.choice([0.0, 0.5, 0.99, 1.0], count).astype(np.float32)
    return returns, factor, rng.dirichlet(np.ones(11), count).astype(np.float32)


def test_projection_is_the_papers_loop():
    rows = random_rows()
    np.testing.assert_allclose(project(*rows, Z), literal(*rows), atol=2e-6)


def test_mass_is_kept_whatever_is_clipped():
    np.testing.assert_allclose(tf.reduce_sum(project(*random_rows(), Z), -1), 1.0, atol=1e-5)


def test_nothing_moves_without_reward_and_discount():
    _, _, probs = random_rows()
    zero, one = np.zeros(40, np.float32), np.ones(40, np.float32)
    np.testing.assert_allclose(project(zero, one, probs, Z), probs, atol=1e-6)


def test_the_mean_follows_the_bellman_equation_within_the_range():
    _, _, probs = random_rows()
    returns, factor = np.full(40, 0.3, np.float32), np.full(40, 0.8, np.float32)
    mean = probs @ Z.numpy()
    found = project(returns, factor, probs, Z).numpy() @ Z.numpy()
    np.testing.assert_allclose(found, 0.3 + 0.8 * mean, atol=1e-5)


def test_a_terminal_puts_all_mass_at_the_return():
    probs = np.full((1, 11), 1 / 11, np.float32)
    found = project(np.array([0.5], "f"), np.array([0.0], "f"), probs, Z).numpy()[0]
    np.testing.assert_allclose(found, np.eye(11)[5], atol=1e-6)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="factor should have shape"):
        project(np.zeros(2, "f"), np.zeros(3, "f"), np.zeros((2, 11), "f"), Z)
