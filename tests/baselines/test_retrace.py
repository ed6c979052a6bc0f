"""Retrace and projected value distributions against slow versions, and their identities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from baselines.returns import project, retrace

Z = tf.linspace(-2.0, 3.0, 11)


def projected_slowly(returns: np.ndarray, factor: np.ndarray, probs: np.ndarray) -> np.ndarray:
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
    np.testing.assert_allclose(project(*rows, Z), projected_slowly(*rows), atol=2e-6)


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


B, T, GAMMA = 7, 9, 0.9


def random_sequences(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    is_first = rng.random((B, T)) < 0.2
    cont = np.ones((B, T))
    # Some episodes end in a terminal, others at a time limit.
    cont[:, :-1][is_first[:, 1:] & (rng.random((B, T - 1)) < 0.5)] = 0
    found = {
        "reward": rng.normal(size=(B, T)), "pcont": GAMMA * cont,
        "q": rng.normal(size=(B, T - 1)), "value": rng.normal(size=(B, T)),
        "trace": rng.random((B, T - 1)),
    }  # fmt: skip
    return {**{k: v.astype(np.float32) for k, v in found.items()}, "is_first": is_first}


def retraced_slowly(s: dict[str, np.ndarray]) -> np.ndarray:
    """q_t + sum over s >= t of (product of pcont and c) * temporal difference of s (equation 4)."""
    targets = np.zeros((B, T - 1))
    for b in range(B):
        for t in range(T - 1):
            total, factor = s["q"][b, t], 1.0
            for k in range(t, T - 1):
                if s["is_first"][b, k + 1]:
                    break  # timestep k is its episode's last: nothing was done in it
                if k > t:
                    factor *= s["pcont"][b, k] * s["trace"][b, k]
                bootstrap = s["pcont"][b, k + 1] * s["value"][b, k + 1]
                total += factor * (s["reward"][b, k + 1] + bootstrap - s["q"][b, k])
            targets[b, t] = total
    return targets


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_papers_series(seed: int):
    s = random_sequences(seed)
    targets, weight = retrace(**s)
    assert (weight.numpy() == ~s["is_first"][:, 1:]).all()
    mask = weight.numpy() > 0
    np.testing.assert_allclose(targets.numpy()[mask], retraced_slowly(s)[mask], atol=1e-5)


def test_lambda_zero_is_the_one_step_target():
    s = random_sequences()
    targets, _ = retrace(**{**s, "trace": np.zeros_like(s["trace"])})
    one_step = s["reward"][:, 1:] + s["pcont"][:, 1:] * s["value"][:, 1:]
    np.testing.assert_allclose(targets, one_step, atol=1e-6)


def test_on_policy_with_lambda_one_and_no_dependence_on_actions_it_is_the_n_step_return():
    s = random_sequences()
    s["is_first"][:] = False
    s |= {"q": s["value"][:, :-1], "trace": np.ones_like(s["trace"])}
    targets, _ = retrace(**s)
    for t in range(T - 1):
        total, factor = np.zeros(B), np.ones(B)
        for k in range(t + 1, T):
            total += factor * s["reward"][:, k]
            factor *= s["pcont"][:, k]
        np.testing.assert_allclose(targets[:, t], total + factor * s["value"][:, -1], atol=1e-5)


def test_nothing_crosses_an_episodes_end():
    s = random_sequences()
    s["is_first"][:] = False
    s["is_first"][:, 5] = True
    changed = {k: v.copy() for k, v in s.items()}
    for key in ("reward", "value", "pcont"):
        changed[key][:, 5:] += 1
    changed["q"][:, 5:] += 1
    a, b = retrace(**s)[0].numpy(), retrace(**changed)[0].numpy()
    np.testing.assert_array_equal(a[:, :4], b[:, :4])
    assert (a[:, 5:] != b[:, 5:]).all()


def test_wrong_shapes_are_named():
    s = random_sequences()
    with pytest.raises(ValueError, match="trace should have shape"):
        retrace(**{**s, "trace": tf.zeros([B, T])})
    with pytest.raises(ValueError, match="factor should have shape"):
        project(np.zeros(2, "f"), np.zeros(3, "f"), np.zeros((2, 11), "f"), Z)
