"""n-step returns, Retrace and projected value distributions against slow versions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from small_baseline import returns_slowly

from baselines.a3c.a3c import n_step_returns
from baselines.d4pg import project
from baselines.latent_sac import retrace

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


def test_projection_is_the_papers_loop():
    rng = np.random.default_rng(0)
    returns = rng.normal(scale=2, size=40).astype(np.float32)
    returns[:4] = 0.0  # with a factor of 1 nothing moves
    factor = np.tile([1.0, 0.0, 0.5, 0.99], 10).astype(np.float32)
    rows = returns, factor, rng.dirichlet(np.ones(11), 40).astype(np.float32)
    np.testing.assert_allclose(project(*rows, Z), projected_slowly(*rows), atol=2e-6)


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


def test_n_step_returns_end_with_their_episode_or_the_rollout():
    s = random_sequences()
    # The streams of A3C have time first.
    cont, value = (s["pcont"] / GAMMA).T, s["value"].T
    reward, is_last = s["reward"].T, np.roll(s["is_first"], -1, 1).T
    ended = is_last[:-1]
    assert (ended & (cont[:-1] == 0)).any() and (ended & (cont[:-1] == 1)).any()
    found = n_step_returns(reward, cont, tf.constant(is_last), value, GAMMA)
    np.testing.assert_allclose(
        found, returns_slowly(reward, cont, is_last, value, GAMMA), atol=1e-5
    )


def test_wrong_shapes_are_named():
    s = random_sequences()
    with pytest.raises(ValueError, match="trace should have shape"):
        retrace(**{**s, "trace": tf.zeros([B, T])})
    with pytest.raises(ValueError, match="factor should have shape"):
        project(np.zeros(2, "f"), np.zeros(3, "f"), np.zeros((2, 11), "f"), Z)
