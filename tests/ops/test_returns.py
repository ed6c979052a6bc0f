"""Lambda-returns and weights against slow literal loops, hand-computed arrays and identities."""

import numpy as np
import pytest
import tensorflow as tf

from dreamer.ops.returns import lambda_returns, trajectory_weights


def inputs(n: int = 7, horizon: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, n, horizon)).astype(np.float32)
    pcont = rng.uniform(0.5, 1.0, (n, horizon)).astype(np.float32)
    return reward, value, pcont


def k_step_return(reward, value, pcont, row: int, start: int, k: int) -> float:
    """k rewards from `start` on, each discounted by the pcont before it, then the value."""
    total, factor = 0.0, 1.0
    for i in range(start, start + k):
        total += factor * float(reward[row, i])
        factor *= float(pcont[row, i])
    return total + factor * float(value[row, start + k])


def mixture_of_k_steps(reward, value, pcont, lambda_: float) -> np.ndarray:
    """The paper's equation 6: (1 - lambda) sum_k lambda^(k-1) V^k, the longest takes the rest."""
    n, horizon = reward.shape
    returns = np.zeros((n, horizon - 1))
    for row in range(n):
        for start in range(horizon - 1):
            longest = horizon - 1 - start
            for k in range(1, longest + 1):
                share = (1 - lambda_) * lambda_ ** (k - 1) if k < longest else lambda_ ** (k - 1)
                returns[row, start] += share * k_step_return(reward, value, pcont, row, start, k)
    return returns


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.95, 1.0])
def test_equals_the_mixture_of_k_step_returns(lambda_: float) -> None:
    reward, value, pcont = inputs()
    actual = lambda_returns(reward, value, pcont, lambda_)
    np.testing.assert_allclose(
        actual, mixture_of_k_steps(reward, value, pcont, lambda_), rtol=1e-5, atol=1e-5
    )


def test_by_hand() -> None:
    """H = 3, gamma = lambda = 1/2: V_2 = 2 + (1/2) 8 = 6, V_1 = 1 + (1/2)(4/2 + 6/2) = 3.5."""
    reward, value = np.float32([[1, 2, 99]]), np.float32([[77, 4, 8]])
    pcont = np.float32([[0.5, 0.5, 99]])
    np.testing.assert_array_equal(lambda_returns(reward, value, pcont, 0.5), [[3.5, 6.0]])


@pytest.mark.parametrize(("shapes", "message"), [
    (((4, 5), (4, 6), (4, 6)), r"reward should have shape \[4, 6\], but has \[4, 5\]"),
    (((4, 6), (4, 6), (3, 6)), r"pcont should have shape \[4, 6\], but has \[3, 6\]"),
    (((4, 6), (4, 6, 1), (4, 6)), r"value should have shape \[\?, \?\], but has \[4, 6, 1\]"),
    (((4, 1), (4, 1), (4, 1)), "horizon of at least 2, but got 1"),
])  # fmt: skip
def test_wrong_shapes_are_named(shapes, message: str) -> None:
    reward, value, pcont = (tf.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        lambda_returns(reward, value, pcont, 0.95)


def test_weights_are_the_products_so_far() -> None:
    _, _, pcont = inputs()
    expected = np.ones_like(pcont)
    for i in range(1, pcont.shape[1]):
        expected[:, i] = expected[:, i - 1] * pcont[:, i - 1]
    np.testing.assert_allclose(trajectory_weights(tf.constant(pcont)), expected, rtol=1e-6)
