"""A3C: returns, loss and optimizer against NumPy; learning; processes that share parameters."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from whole_runs import metrics_of, state_of, wait_until

from baselines.a3c import A3C, apply_rmsprop, make
from baselines.a3c_learner import ActorLearner
from baselines.n_step import n_step_returns
from baselines.run import train
from baselines.shared_memory import SharedArrays
from dreamer.config import Config, load_config
from dreamer.envs.pool import EnvPool
from dreamer.envs.spec import Space
from dreamer.interrupt import Interrupt, StopRequested

HERE = Path(__file__).resolve().parent
VECTOR = {"place": Space((2,), np.dtype(np.float32))}
CONTINUOUS = Space((2,), np.dtype(np.float32), -1.0, 1.0)
ONEHOT = Space((3,), np.dtype(np.float32), 0.0, 1.0, discrete=True)


def make_agent(act_space: Space = CONTINUOUS, **overrides: Any) -> A3C:
    values = {key.replace("__", "."): value for key, value in overrides.items()}
    return make(load_config("debug", agent="a3c", overrides=values), VECTOR, act_space)


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


def slow_returns(r: dict[str, np.ndarray], value: np.ndarray, gamma: float) -> np.ndarray:
    """From each record forward, to its episode's or the rollout's end."""
    steps, n = len(r["reward"]) - 1, r["reward"].shape[1]
    found = np.zeros((steps, n))
    for t, i in np.ndindex(steps, n):
        total, factor, k = 0.0, 1.0, t
        while k < steps and not r["is_last"][k, i]:
            k += 1
            total += factor * r["reward"][k, i]
            factor *= gamma
        found[t, i] = total + factor * r["cont"][k, i] * value[k, i]
    return found


def test_returns_at_terminals_time_limits_and_the_rollouts_end():
    r = random_rollout(ONEHOT)
    assert (r["is_last"] & (r["cont"] == 0)).any() and (r["is_last"] & (r["cont"] == 1)).any()
    value = np.random.default_rng(1).normal(size=(7, 4)).astype(np.float32)
    found = n_step_returns(r["reward"], r["cont"], tf.constant(r["is_last"]), value, 0.9)
    np.testing.assert_allclose(found, slow_returns(r, value, 0.9), atol=1e-5)


@pytest.mark.parametrize("act_space", [CONTINUOUS, ONEHOT], ids=["continuous", "onehot"])
def test_the_loss_is_the_formula(act_space: Space):
    agent = make_agent(act_space, a3c__entropy_scale=0.3)
    r = random_rollout(act_space)
    outputs, value = agent.nets({"vector": r["vector"].reshape(-1, 2)})
    outputs, value = outputs.numpy().reshape(7, 4, -1), value.numpy().reshape(7, 4)
    returns = slow_returns(r, value, 0.99)
    terms = []
    for t, i in np.argwhere(~r["is_last"][:-1]):
        out, action = outputs[t, i], r["action"][t, i]
        if act_space.discrete:
            p = np.exp(out) / np.exp(out).sum()
            log_prob, entropy = np.log(p @ action), -(p * np.log(p)).sum()
        else:
            mean, raw = np.tanh(out[:2]), np.log(np.expm1(0.7))
            std = np.log1p(np.exp(out[2:] + raw)) + 1e-3
            z = (action - mean) / std
            log_prob = (-0.5 * z**2 - np.log(std) - 0.5 * np.log(2 * np.pi)).sum()
            entropy = (0.5 * np.log(2 * np.pi * np.e) + np.log(std)).sum()
        error = returns[t, i] - value[t, i]
        terms.append(-log_prob * error - 0.3 * entropy + 0.5 * 0.5 * error**2)
    loss, _ = agent.loss({k: tf.constant(v) for k, v in r.items()})
    np.testing.assert_allclose(loss, np.mean(terms), rtol=1e-4)


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
    layout = {"a": ("<f4", [3]), "b": ("<i8", [2, 2])}
    one = SharedArrays(layout)
    other = SharedArrays(layout, one.descriptor)
    one["a"][:] = [1, 2, 3]
    other["b"][1, 1] = -7
    assert other["a"].tolist() == [1, 2, 3] and one["b"].tolist() == [[0, 0], [0, -7]]


def test_a_gradient_that_is_not_finite_changes_nothing():
    agent = make_agent()
    before = agent.shared["params"].copy()
    r = random_rollout(CONTINUOUS)
    r["reward"][:] = np.inf
    metrics = agent.learn(r)
    assert not np.isfinite(metrics["grad_norm"])
    np.testing.assert_array_equal(agent.shared["params"], before)


def test_arrays_bring_everything_back():
    agent, other = make_agent(), make_agent(seed=3)
    agent.learn(random_rollout(CONTINUOUS))
    agent.shared["steps"][:] = [4, 5]
    other.load_arrays(agent.state_arrays())
    for one in (agent, other):
        one.refresh()
        one.learn(random_rollout(CONTINUOUS))
    for key, value in agent.state_arrays().items():
        np.testing.assert_array_equal(value, other.state_arrays()[key])
    records = {"place": np.ones((2, 2), np.float32), "is_first": np.ones(2, bool)}
    one, two = (a.policy(records, None, "eval")[0] for a in (agent, other))
    np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match="not a3c's"):
        other.load_arrays({})


@pytest.mark.parametrize("maker", ["continuous", "discrete"])
def test_a_learner_counts_what_it_does_and_moves_the_shared_parameters(maker: str):
    episodes: list[float] = []
    with EnvPool(f"{HERE}/reach_env.py:{maker}", amount=4, action_repeat=1) as pool:
        values = {"a3c.n_step": 10, "a3c.synchronous": True, "envs.amount": 4}
        config = load_config("debug", agent="a3c", overrides=values)
        agent = make(config, pool.obs_space, pool.act_space)
        before = agent.shared["params"].copy()
        learner = ActorLearner(agent, pool, 0, lambda r, length: episodes.append(r))
        metrics = [learner.round() for _ in range(11)]
    # Of the 110 turns of each environment ten episodes take ten steps each, and one to begin anew.
    assert agent.shared["steps"].tolist() == [4 * 100]
    assert agent.shared["updates"].tolist() == [11] and agent.shared["episodes"].tolist() == [44]
    assert len(episodes) == 40 and all(0 <= r <= 10 for r in episodes)
    assert (agent.shared["params"] != before).any()
    assert all(np.isfinite(value) for m in metrics for value in m.values())


def config_for(logdir: Path, **values: Any) -> Config:
    quick = {
        "steps": 300, "train.every": 60, "eval.every": 150, "eval.episodes": 2, "eval.videos": 0,
        "log.every": 60, "log.terminal": "plain", "log.tensorboard": False,
        "checkpoint.every": 60, "envs.time_limit": 0, "logdir": str(logdir),
    }  # fmt: skip
    task = f"{HERE}/reach_env.py:continuous"
    return load_config("debug", task=task, overrides={**quick, **values}, agent="a3c")


def test_processes_share_what_they_learn_and_stop_and_go_on(tmp_path: Path):
    config = config_for(tmp_path, steps=100_000)
    run = tmp_path / "stopped"
    interrupt: list[Interrupt] = []
    enter = Interrupt.__enter__

    def remember(self: Interrupt) -> Interrupt:
        interrupt.append(self)
        return enter(self)

    def stop() -> None:
        wait_until(lambda: any(len(metrics_of(p.parent)) > 3 for p in
                               tmp_path.rglob("metrics.jsonl")))  # fmt: skip
        interrupt[0]._number = 15

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopRequested):
        patch.setattr(Interrupt, "__enter__", remember)
        train(config)
    thread.join()
    (run,) = (path.parent for path in tmp_path.rglob("metrics.jsonl"))
    assert run.parent.name == "a3c_debug"
    lines, saved = metrics_of(run), state_of(run)
    assert "train/return" in lines[-1] and np.isfinite(lines[-1]["model/value_loss"])
    newest = max((run / "checkpoints").iterdir())
    with np.load(newest / "arrays.npz") as arrays:
        assert (arrays["updates"] > 0).all()  # both learnt
        assert arrays["steps"].sum() == saved["agent_steps"]
        assert arrays["updates"].sum() == saved["update"]
    steps = saved["agent_steps"] + 100
    result = train(config.replace({"steps": steps}))
    assert steps <= result.step <= steps + 10  # each learner ends its rollout of five
    assert result.updates > saved["update"]
    assert metrics_of(run)[: len(lines)] == lines
