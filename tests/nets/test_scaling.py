"""Statistics of the replay against NumPy's, and what vectors and rewards become by them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from small_agent import BOTH, VECTORS, make_agent, make_batch, shared_model, update

from dreamer.nets.heads import Reward
from dreamer.nets.return_range import ReturnRange
from dreamer.nets.scaling import RunningScale
from dreamer.ops.scalars import symexp, symlog


def built(layer: Any, *arguments: Any) -> Any:
    layer.build(*arguments)
    return layer


def resumed(keys: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    agent = make_agent(**keys)
    agent.load_arrays(arrays)
    return agent


def batches(count: int, seed: int = 0) -> np.ndarray:
    """[count, 4, 5, 3], of different means and spreads."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, 4, 5, 3)) * [1e-3, 1, 50] + [2, 0, -300]).astype(np.float32)


@pytest.mark.parametrize("centered", [True, False])
def test_the_first_batches_count_alike(centered: bool) -> None:
    scale, rows = built(RunningScale(3, centered)), batches(7)
    np.testing.assert_array_equal(scale(rows[0]), rows[0])  # nothing is known yet
    for batch in rows:
        scale.learn(tf.constant(batch))
    flat = rows.reshape(-1, 3).astype(np.float64)
    mean = flat.mean(0) if centered else np.zeros(3)
    std = np.sqrt(((flat - mean) ** 2).mean(0))
    np.testing.assert_allclose(scale.std, std, rtol=1e-3)
    np.testing.assert_allclose(scale(rows[0]), (rows[0] - mean) / std, atol=2e-3, rtol=1e-3)
    np.testing.assert_allclose(scale.inverse(scale(rows[0])), rows[0], rtol=1e-4, atol=1e-4)


def test_later_batches_move_an_exponential_average() -> None:
    scale = built(RunningScale(1))
    scale._mean.assign([2.0])
    scale._variance.assign([9.0])
    scale._batches.assign(5000.0)
    scale.learn(tf.constant([[4.0], [8.0]]))  # mean 6, variance 4
    rate = 1e-3
    np.testing.assert_allclose(scale._mean, [2 + rate * 4], rtol=1e-6)
    expected = (1 - rate) * (9 + rate * 16) + rate * 4
    np.testing.assert_allclose(scale._variance, [expected], rtol=1e-6)


def test_constant_components_stay_near_zero() -> None:
    scale = built(RunningScale(2))
    rows = np.tile(np.float32([1e4 / 3, 0.0]), (8, 1))
    for _ in range(3):
        scale.learn(tf.constant(rows))
    assert np.abs(scale(rows)).max() < 1


def test_a_batch_that_is_not_finite_changes_nothing() -> None:
    scale, found = built(RunningScale(3)), built(ReturnRange())
    for layer, good in ((scale, batches(1)[0]), (found, batches(1)[0, 0])):
        layer.learn(tf.constant(good))
        before = [v.numpy() for v in layer.variables]
        bad = good.copy()
        bad[0, 0] = np.nan
        layer.learn(tf.constant(bad))
        for old, variable in zip(before, layer.variables, strict=True):
            np.testing.assert_array_equal(variable, old)


def test_symlog_and_its_inverse() -> None:
    x = np.float32([-1e6, -3, -1e-4, 0, 1e-4, 1, 2e5])
    np.testing.assert_allclose(symlog(x), np.sign(x) * np.log1p(np.abs(x)), rtol=1e-6)
    np.testing.assert_allclose(symexp(symlog(x)), x, rtol=1e-5)


def test_normalised_rewards() -> None:
    head = built(Reward(layers=1, units=4, transform="normalize"), (None, 5))
    rewards = np.float32([[0, 3000], [-4000, 0]])
    assert head.scale is not None
    head.scale.learn(tf.constant(rewards[..., None]))
    np.testing.assert_allclose(head.target(rewards), rewards / 2500, rtol=1e-6)
    assert head.target(rewards).shape == (2, 2)


# ---------------------------------------------------------------- the world model


def test_the_model_scales_vectors_and_no_images() -> None:
    model = make_agent(BOTH, inputs__normalize=True, inputs__symlog=True).world_model
    batch = {k: tf.constant(v) for k, v in make_batch(BOTH).items()}
    model.learn_scales(batch)
    joints = batch["joints"].numpy()
    expected = (joints - joints.mean((0, 1))) / joints.std((0, 1))
    found = model.preprocess({k: batch[k] for k in BOTH})
    expected = np.sign(expected) * np.log1p(np.abs(expected))
    np.testing.assert_allclose(found["joints"], expected, rtol=1e-3, atol=1e-5)
    plain = shared_model(BOTH).preprocess({k: batch[k] for k in BOTH})
    np.testing.assert_array_equal(found["image"], plain["image"])
    truth, _ = model.open_loop(batch, 2, tf.zeros([3, 6, 4]))
    np.testing.assert_allclose(truth["joints"], joints, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("eagerly")
def test_observations_and_rewards_of_any_size_teach_the_same() -> None:
    agents = {
        factor: make_agent(inputs__normalize=True, reward__transform="normalize")
        for factor in (1.0, 1e-3, 1e3)
    }
    for number in range(2):
        batch, metrics = make_batch(seed=number), {}
        for factor, agent in agents.items():
            scaled = {k: batch[k] * np.float32(factor) for k in (*VECTORS, "reward")}
            metrics[factor] = update(agent, {**batch, **scaled}, number)
        for found in metrics.values():
            for key in ("model_loss", "actor_loss", "value_loss"):
                assert found[key] == pytest.approx(metrics[1.0][key], rel=1e-3)
    for factor, found in metrics.items():
        for key in ("joints_least_std", "reward_scale"):
            assert found[key] == pytest.approx(factor * metrics[1.0][key], rel=1e-4)


@pytest.mark.usefixtures("eagerly")
def test_statistics_are_in_the_checkpoint_and_resume() -> None:
    """tests/agent/test_agent.py does the same with graphs."""
    keys = {
        "inputs__normalize": True, "reward__transform": "normalize",
        "behavior__normalize": "percentile", "value__slow_rate": 0.1,
    }  # fmt: skip
    one, other = make_agent(**keys), make_agent(**keys, seed=1)
    for number in range(2):
        update(one, make_batch(seed=number), number)
    arrays = one.state_arrays()
    other.load_arrays(arrays)
    for name, array in other.state_arrays().items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)
    kept = [k for k in arrays if "scale" in k or "return_range" in k or "slow_value" in k]
    assert sum(k.endswith("batches") for k in kept) == 4  # two vectors, the reward, the returns
    assert all(arrays[k] == 2 for k in kept if k.endswith("batches"))
    batch = make_batch(seed=2)
    first, second = (update(make_like, batch, 2) for make_like in (one, resumed(keys, arrays)))
    assert first == second


# ---------------------------------------------------------------- returns


def test_the_range_of_returns_is_numpys() -> None:
    found, rng = built(ReturnRange()), np.random.default_rng(0)
    assert found.scale() == 1.0
    average = 0.0
    for number in range(1, 4):
        returns = (rng.normal(size=(6, 7)) * 10 * number).astype(np.float32)
        low, high = np.percentile(returns, [5, 95])
        average += (high - low - average) / number
        found.learn(tf.constant(returns))
        np.testing.assert_allclose(found.scale(), average, rtol=1e-5)
    small = built(ReturnRange())
    small.learn(tf.constant(returns / 1000))
    assert small.scale() == 1.0
