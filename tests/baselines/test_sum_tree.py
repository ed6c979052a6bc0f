"""Drawing in proportion to masses, against cumulative sums."""

from __future__ import annotations

import numpy as np

from baselines.memory import SumTree, importance_weights


def test_draws_are_those_of_the_cumulative_masses():
    rng = np.random.default_rng(0)
    masses = rng.random(37) * (rng.random(37) < 0.7)
    tree = SumTree(37)
    tree.set(np.arange(37), masses)
    assert np.isclose(tree.total, masses.sum())
    shares = rng.random(500)
    literal = np.searchsorted(np.cumsum(masses), shares * masses.sum(), side="right")
    assert (tree.draw(shares) == literal).all()


def test_frequencies_are_proportional():
    tree = SumTree(4)
    tree.set(np.array([0, 1, 2, 3]), np.array([1.0, 0.0, 2.0, 5.0]))
    drawn = tree.draw((np.arange(8000) + 0.5) / 8000)
    assert (np.bincount(drawn, minlength=4) == [1000, 0, 2000, 5000]).all()


def test_masses_change_and_the_last_of_two_counts():
    tree = SumTree(10)
    tree.set(np.array([3, 3, 9]), np.array([1.0, 2.0, 4.0]))
    assert tree.masses(np.array([3, 9])).tolist() == [2.0, 4.0] and tree.total == 6.0
    tree.set(np.array([9]), 0.0)
    assert tree.total == 2.0 and set(tree.draw(np.linspace(0, 0.999, 50))) == {3}


def test_no_share_ever_draws_an_item_without_mass():
    tree = SumTree(100)
    tree.set(np.arange(0, 100, 3), 0.1)
    shares = np.concatenate([np.linspace(0, 1, 1000, endpoint=False), [np.nextafter(1, 0)]])
    assert (tree.draw(shares) % 3 == 0).all()


def test_weights_are_the_papers():
    probabilities = np.array([[0.1, 0.4, 0.2], [0.3, 0.3, 0.6]])
    for beta in (0.0, 0.4, 1.0):
        literal = (50 * probabilities) ** -beta
        literal /= literal.max(1, keepdims=True)
        np.testing.assert_allclose(importance_weights(probabilities, beta), literal, rtol=1e-6)
