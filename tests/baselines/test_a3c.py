"""A3C: loss and optimizer against NumPy; what a learner does; learning."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from small_agent import CONTINUOUS, IMAGE, ONEHOT
from small_baseline import VECTOR, arrays_come_back, returns_slowly
from small_baseline import make_agent as agent_of

from baselines.a3c.a3c import A3C, apply_rmsprop, shared_arrays
from baselines.a3c.actor_learner import ActorLearner
from dreamer.config.config import load_config
from dreamer.envs.processes.pool import EnvPool, EnvRestartWarning
from dreamer.envs.spec import Space

HERE = Path(__file__).resolve().parent


def make_agent(act_space: Space = CONTINUOUS, **overrides: Any) -> A3C:
    return agent_of("a3c", VECTOR, act_space, **overrides)


@contextmanager
def learning(
    maker: str, num_envs: int, returns: list[float], **overrides: Any
) -> Iterator[tuple[A3C, ActorLearner]]:
    """An agent and its only learner, which appends the returns of its episodes."""
    task, settings = f"{HERE}/reach_env.py:{maker}", {"action_repeat": 1, "state": True}
    with EnvPool(task, num_envs=num_envs, restarts=9, **settings) as pool:
        agent = agent_of("a3c", pool.obs_space, pool.act_space, a3c__synchronous=True, **overrides)
        yield agent, ActorLearner(agent, pool, 0, lambda r, length: returns.append(r))


def random_rollout(act_space: Space, steps: int = 6, n: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    is_last = rng.random((steps + 1, n)) < 0.2
    terminal = is_last & (rng.random((steps + 1, n)) < 0.5)
    action = np.stack([[act_space.sample(rng) for _ in range(n)] for _ in range(steps)])
    return {
        "vector": rng.normal(size=(steps + 1, n, 2)).astype(np.float32), "action": action,
        "reward": rng.normal(size=(steps + 1, n)).astype(np.float32), "is_last": is_last,
        "cont": 1 - terminal.astype(np.float32),
    }  # fmt: skip


def test_the_loss_of_continuous_actions_is_the_formula():
    agent, r = make_agent(a3c__entropy_scale=0.3), random_rollout(CONTINUOUS)
    outputs, value = agent.nets({"vector": r["vector"].reshape(-1, 2)})
    outputs, value = outputs.numpy().reshape(7, 4, -1), value.numpy().reshape(7, 4)
    returns = returns_slowly(r["reward"], r["cont"], r["is_last"], value, 0.99)
    terms = []
    for t, i in np.argwhere(~r["is_last"][:-1]):
        out = outputs[t, i]
        mean, raw = np.tanh(out[:2]), np.log(np.expm1(0.7))
        std = np.log1p(np.exp(out[2:] + raw)) + 1e-3
        z = (r["action"][t, i] - mean) / std
        log_prob = (-0.5 * z**2 - np.log(std) - 0.5 * np.log(2 * np.pi)).sum()
        entropy = (0.5 * np.log(2 * np.pi * np.e) + np.log(std)).sum()
        error = returns[t, i] - value[t, i]
        terms.append(-log_prob * error - 0.3 * entropy + 0.5 * 0.5 * error**2)
    loss, _ = agent.loss({k: tf.constant(v) for k, v in r.items()})
    np.testing.assert_allclose(loss, np.mean(terms), rtol=1e-4)


def test_the_loss_of_one_hot_actions_and_its_gradients_are_the_formulas():
    """Advantages are constants to the policy's term, and returns to the value's."""
    agent = make_agent(ONEHOT, a3c__clip=1e9)
    r = random_rollout(ONEHOT)
    flat = {"vector": tf.constant(r["vector"].reshape(-1, 2))}
    value = agent.nets(flat)[1].numpy().reshape(7, 4)
    returns = returns_slowly(r["reward"], r["cont"], r["is_last"], value, 0.99).astype(np.float32)
    mask = (~r["is_last"][:-1]).reshape(-1) / (~r["is_last"][:-1]).sum()
    with tf.GradientTape() as tape:
        outputs, now = agent.nets(flat)
        logs = tf.nn.log_softmax(outputs[:24])
        chosen = tf.reduce_sum(logs * r["action"].reshape(24, 3), -1)
        entropy = -tf.reduce_sum(tf.exp(logs) * logs, -1)
        policy = -chosen * (returns - value[:-1]).reshape(-1) - 0.001 * entropy
        error = tf.square(returns.reshape(-1) - now[:24])
        literal = tf.reduce_sum(mask.astype(np.float32) * (policy + 0.25 * error))
    expected = tape.gradient(literal, agent.nets.trainable_variables)
    with tf.GradientTape() as tape:
        loss, _ = agent.loss({k: tf.constant(v) for k, v in r.items()})
    np.testing.assert_allclose(loss, literal, rtol=1e-4)
    found = tape.gradient(loss, agent.nets.trainable_variables)
    for variable, one, other in zip(agent.nets.trainable_variables, found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6, err_msg=variable.path)


def test_rmsprop_is_the_papers():
    params, squares = np.array([1.0, -2.0]), np.array([0.5, 0.0])
    literal_p, literal_s = params.copy(), squares.copy()
    for gradient in (np.array([0.1, -3.0]), np.array([2.0, 0.0])):
        apply_rmsprop(params, squares, gradient, lr=0.01, decay=0.9, eps=0.1)
        for i in range(2):
            literal_s[i] = 0.9 * literal_s[i] + 0.1 * gradient[i] ** 2
            literal_p[i] -= 0.01 * gradient[i] / (literal_s[i] + 0.1) ** 0.5
    np.testing.assert_allclose(params, literal_p)
    np.testing.assert_allclose(squares, literal_s)


def test_shared_arrays_are_seen_by_whoever_has_the_descriptor():
    layout = {"a": ("<f4", 3), "b": ("<i8", 2)}
    one, descriptor = shared_arrays(layout)
    other, _ = shared_arrays(layout, descriptor)
    one["a"][:] = [1, 2, 3]
    other["b"][1] = -7
    assert other["a"].tolist() == [1, 2, 3] and one["b"].tolist() == [0, -7]
    assert all(array.flags.aligned for array in one.values())


def test_a_gradient_that_is_not_finite_changes_nothing():
    agent = make_agent()
    agent.learn(random_rollout(CONTINUOUS))
    before = {name: agent.shared[name].copy() for name in ("params", "squares")}
    r = random_rollout(CONTINUOUS)
    r["reward"][:] = np.inf
    assert agent.learn(r)["nonfinite"] == 1
    for name, values in before.items():
        np.testing.assert_array_equal(agent.shared[name], values)


def test_the_learning_rate_follows_the_schedule():
    agent = make_agent(optimizer__decay="linear", optimizer__decay_updates=4)
    steps = []
    for updates in (0, 2, 4):
        agent.shared["updates"][0], agent.shared["squares"][:] = updates, 0.0
        before = agent.shared["params"].copy()
        agent.learn(random_rollout(CONTINUOUS))  # with the weights of the start, if not refreshed
        steps.append(agent.shared["params"] - before)
    np.testing.assert_allclose(steps[1], 0.5 * steps[0], rtol=1e-3, atol=1e-7)
    assert np.abs(steps[0]).max() > 0 and not steps[2].any()


def test_arrays_bring_everything_back():
    agent, other = make_agent(), make_agent(seed=3)
    agent.learn(random_rollout(CONTINUOUS))
    agent.shared["steps"][:] = [4, 5]

    def learn(one: A3C) -> None:
        one.refresh()
        one.learn(random_rollout(CONTINUOUS))

    arrays_come_back(agent, other, learn)
    timesteps = {"place": np.ones((2, 2), np.float32), "is_first": np.ones(2, bool)}
    one, two = (a.policy(timesteps, None, "eval")[0] for a in (agent, other))
    np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match="not a3c's"):
        other.load_arrays({})


@pytest.mark.parametrize("maker", ["continuous", "discrete"])
def test_a_learner_counts_what_it_does_and_moves_the_shared_parameters(maker: str):
    episodes: list[float] = []
    with learning(maker, 4, episodes, a3c__n_step=10) as (agent, learner):
        before = agent.shared["params"].copy()
        metrics = [learner.round()[0] for _ in range(11)]
    # Of the 110 turns of each environment ten episodes take ten steps each, and one to begin anew.
    assert agent.shared["steps"].tolist() == [4 * 100]
    assert agent.shared["updates"].tolist() == [11] and agent.shared["episodes"].tolist() == [44]
    assert len(episodes) == 40 and all(0 <= r <= 10 for r in episodes)
    assert (agent.shared["params"] != before).any()
    assert all(np.isfinite(value) for m in metrics for value in m.values())


@pytest.mark.parametrize(("maker", "clip"), [("echo", False), ("failing", True)])
def test_every_row_of_a_rollout_follows_from_the_one_before(maker: str, clip: bool):
    """By what the environment says of the action; across ends, failures and rollouts."""
    returns: list[float] = []
    with (
        learning(maker, 2, returns, a3c__n_step=23, a3c__clip_rewards=clip) as (agent, learner),
        warnings.catch_warnings(record=True) as failures,
    ):
        warnings.simplefilter("always", EnvRestartWarning)
        rollouts = [learner.round()[1] for _ in range(3)]
    lost = 0
    for r, before in zip(rollouts, [None, *rollouts], strict=False):
        shown, step = r["vector"][..., :2], r["vector"][..., 2]  # action, then step
        if before is not None:
            np.testing.assert_array_equal(r["vector"][0], before["vector"][-1])
        for t, i in np.ndindex(23, 2):
            if r["is_last"][t, i]:
                lost += step[t, i] < 10
                assert step[t + 1, i] == 0 and not shown[t + 1, i].any()
                continue
            taken = np.clip(r["action"][t, i], -1, 1)
            np.testing.assert_array_equal(shown[t + 1, i], taken)
            reward = np.clip(10 * taken[0], -1, 1) if clip else 10 * taken[0]
            np.testing.assert_allclose(r["reward"][t + 1, i], reward, rtol=1e-6)
            assert step[t + 1, i] == step[t, i] + 1 and r["cont"][t, i] == 1
    assert max(returns) > 10  # what is told of an episode is not clipped
    assert lost == agent.shared["dropped"][0] == sum(
        issubclass(w.category, EnvRestartWarning) for w in failures
    ) == (4 if maker == "failing" else 0)  # fmt: skip
    # What actions are drawn from is counted on from these when a run is resumed.
    assert agent.policy_calls <= agent.shared["steps"][0] + agent.shared["episodes"][0]


@pytest.mark.slow
@pytest.mark.parametrize("maker", ["continuous", "discrete"])
def test_it_learns_to_bring_a_point_to_the_middle(maker: str):
    returns: list[float] = []
    values = {"a3c__n_step": 10, "a3c__units": 32, "a3c__lr": 3e-3, "a3c__gamma": 0.9}
    with learning(maker, 8, returns, **values) as (_, learner):
        for _ in range(200):
            learner.round()
    assert np.mean(returns[-300:]) > 7  # 4.2 to 5.4 with a learning rate of 0


def test_on_atari_it_learns_from_what_the_paper_does():
    config = load_config(agent="a3c", task="atari_pong")
    assert config.a3c.clip_rewards and config.a3c.gray
    assert A3C(config, IMAGE, ONEHOT).observations.shapes == {"image": (64, 64, 4)}
    config = load_config(agent="a3c", task="dmc_walker_walk")
    assert not config.a3c.clip_rewards and not config.a3c.gray
