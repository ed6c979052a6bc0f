"""D4PG's update against NumPy, what it must leave alone, and that it learns."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from small_agent import IMAGE, ONEHOT
from small_baseline import VECTOR, arrays_come_back, set_apart
from small_baseline import make_agent as agent_of

from baselines.d4pg import D4PG, ValueRangeWarning, act, logits
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.training.nonfinite import NonFiniteError, NonFiniteGuard

ACTION = Space((1,), np.dtype(np.float32), -1.0, 1.0)


def make_agent(obs_space=VECTOR, act_space=ACTION, **overrides: Any) -> D4PG:
    return agent_of("d4pg", obs_space, act_space, **overrides)


def bandit(obs_space, seed: int = 0) -> dict[str, np.ndarray]:
    """Episodes of one action: the nearer it is to 0.5, the better."""
    rng = np.random.default_rng(seed)
    obs = {k: np.stack([s.sample(rng) for _ in range(2)]) for k, s in obs_space.items()}
    action = rng.uniform(-1, 1, (2, 1)).astype(np.float32)
    reward = np.array([0, 1 - 2 * abs(action[1, 0] - 0.5)], np.float32)
    return {**obs, "action": action, "reward": reward, "cont": np.array([1, 0], np.float32)}


def test_the_losses_are_the_formulas():
    agent = make_agent(d4pg__v_max=5.0, d4pg__target_period=1000)
    set_apart(agent._target)
    for seed in range(20):
        agent.memory.add(bandit(VECTOR, seed))
    batch = {k: v[0] for k, v in agent.memory.sample(0, 1, 6).items()}
    batch["factor"] = np.full(6, 0.5, np.float32)
    batch["weight"] = np.linspace(0.1, 1, 6, dtype=np.float32)
    nets, copy, z = agent._nets, agent._target, np.linspace(0, 5, 11)
    feat = batch["vector"]
    softmax = lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)  # noqa: E731
    later = batch["next_vector"]
    probs = softmax(logits(copy, later, act(copy, later)).numpy())
    target = np.zeros((6, 11))
    for row, j in np.ndindex(6, 11):
        b = np.clip(batch["return"][row] + 0.5 * z[j], 0, 5) / 0.5
        low = min(int(b), 9)
        target[row, low] += probs[row, j] * (low + 1 - b)
        target[row, low + 1] += probs[row, j] * (b - low)
    found = logits(nets, feat, batch["action"]).numpy()
    cross = -(target * np.log(softmax(found))).sum(-1)
    value = softmax(logits(nets, feat, act(nets, feat)).numpy()) @ z
    metrics, errors = agent.update_once(
        {k: tf.constant(v) for k, v in batch.items()}, tf.constant(1)
    )
    np.testing.assert_allclose(errors, cross, rtol=1e-4)
    np.testing.assert_allclose(metrics["critic_loss"], (batch["weight"] * cross).mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["actor_loss"], -value.mean(), rtol=1e-4)


def test_each_loss_moves_its_own_part_and_targets_wait():
    agent = make_agent(IMAGE, d4pg__target_period=2, d4pg__group=1)
    agent.memory.add(bandit(IMAGE))

    def parts() -> dict[str, np.ndarray]:
        return {k: v.numpy().copy() for k, v in agent.variables().items() if "adam" not in k}

    before = parts()
    agent.train_step(agent.memory.sample(1, 1, 4), 1)  # no copy after update 1
    after = parts()
    moved = {key for key in before if not np.array_equal(before[key], after[key])}
    assert moved and all(key.startswith("nets/") for key in moved)
    for part in ("torso", "actor", "critic"):
        assert any(f"/{part}/" in key for key in moved), part
    agent.train_step(agent.memory.sample(2, 1, 4), 2)
    copied = parts()
    for key, value in copied.items():
        if key.startswith("nets/"):
            np.testing.assert_array_equal(value, copied[key.replace("nets", "target")])


def test_returns_are_of_the_steps_asked_for():
    for steps, expected in ((1, 1.0), (3, 3.0)):
        agent = make_agent(d4pg__n_step=steps, d4pg__gamma=1.0)
        episode = {k: np.repeat(v[-1:], 9, 0) for k, v in bandit(VECTOR).items()}
        agent.memory.add({**episode, "reward": np.ones(9, np.float32)})
        assert agent.memory.sample(0, 1, 50)["return"].max() == expected


def test_returns_beyond_the_atoms_are_told_once():
    agent = make_agent(d4pg__v_max=5.0, d4pg__gamma=0.5)
    episode = {k: np.repeat(v[-1:], 9, 0) for k, v in bandit(VECTOR).items()}
    reward = np.array([9, *[2.5] * 8], np.float32)  # returns just below 5; the first is no one's
    with warnings.catch_warnings():
        warnings.simplefilter("error", ValueRangeWarning)
        agent.remember({**episode, "reward": reward})
    with pytest.warns(ValueRangeWarning, match="go from 0 to 5.977, beyond"):
        agent.remember({**episode, "reward": np.full(9, 3, np.float32)})
    with warnings.catch_warnings():
        warnings.simplefilter("error", ValueRangeWarning)
        agent.remember({**episode, "reward": -reward})
    with pytest.warns(ValueRangeWarning, match="go from -19.31 to 0, beyond d4pg.v_min"):
        make_agent().remember({**episode, "reward": -reward})


def test_groups_are_the_same_updates_as_one_by_one():
    values = {}
    for group in (1, 3):
        agent = make_agent(d4pg__group=group)
        for seed in range(5):
            agent.memory.add(bandit(VECTOR, seed))
        batch = agent.memory.sample(0, 3, 8)
        for first in range(0, 3, group):
            agent.train_step({k: v[first : first + group] for k, v in batch.items()}, first)
        values[group] = agent.state_arrays()
    for key, value in values[1].items():
        np.testing.assert_allclose(value, values[3][key], atol=1e-6, err_msg=key)


def test_updates_of_a_group_that_are_not_finite_are_counted_one_by_one(tmp_path: Path):
    agent = make_agent()
    agent.memory.add(bandit(VECTOR))
    guard = NonFiniteGuard(tmp_path, 2, lambda text: None)
    batch = agent.memory.sample(0, 3, 4)
    batch["weight"][1, 0] = np.inf
    metrics = agent.train_step(batch, 5)
    np.testing.assert_array_equal(metrics["nonfinite"], [0, 1, 0])
    guard.check(5, batch, metrics)
    assert guard.count == 1  # neither three, nor none
    with np.load(tmp_path / "update-00000006.npz") as kept:
        np.testing.assert_array_equal(kept["weight"], batch["weight"][1])
    batch["weight"][:] = np.inf
    with pytest.raises(NonFiniteError, match="2 updates in a row"):
        guard.check(8, batch, agent.train_step(batch, 8))


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_it_finds_the_best_action_of_a_bandit(alpha: float):
    agent = make_agent(
        d4pg__alpha=alpha, d4pg__units=32, d4pg__actor_lr=3e-4, d4pg__critic_lr=1e-2,
        d4pg__v_min=-2.0, d4pg__v_max=1.0, d4pg__atoms=21, d4pg__n_step=1,
    )  # fmt: skip
    for seed in range(150):
        agent.memory.add(bandit(VECTOR, seed))
    for first in range(0, 600, 100):
        agent.train_step(agent.memory.sample(first, 100, 32), first)
    timesteps = {"place": np.zeros((1, 2), np.float32), "is_first": np.array([True])}
    action, _ = agent.policy(timesteps, None, "eval")
    assert abs(action[0, 0] - 0.5) < 0.2


def test_acting_is_reproducible_and_noisy_in_training_alone():
    agent, other = make_agent(IMAGE), make_agent(IMAGE)
    image = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
    timesteps = {"image": image, "is_first": np.array([True, True])}
    first, state = agent.policy(timesteps, None, "train")
    assert state["image"].shape == (2, 64, 64, 9)
    assert first.shape == (2, 1) and np.abs(first).max() <= 1
    np.testing.assert_array_equal(first, other.policy(timesteps, None, "train")[0])
    assert (agent.policy(timesteps, None, "train")[0] != first).any()
    calm = agent.policy(timesteps, None, "eval")[0]
    np.testing.assert_array_equal(calm, agent.policy(timesteps, None, "eval")[0])


def test_evaluations_ask_the_actor_though_training_acts_at_random():
    agent = make_agent(explore__kind="random")
    timesteps = {"place": np.ones((3, 2), np.float32), "is_first": np.ones(3, bool)}
    actor = act(agent._nets, tf.ones([3, 2]))
    np.testing.assert_allclose(agent.policy(timesteps, None, "eval")[0], actor, atol=1e-6)
    assert len(np.unique(agent.policy(timesteps, None, "train")[0])) == 3


def test_arrays_bring_everything_back():
    agent, other = make_agent(), make_agent(seed=1)
    for one in (agent, other):
        for seed in range(5):
            one.memory.add(bandit(VECTOR, seed))
    batch = agent.memory.sample(0, 2, 8)
    agent.train_step(batch, 0)
    arrays_come_back(agent, other, lambda one: one.train_step(batch, 2))
    with pytest.raises(ValueError, match="not this agent's"):
        other.load_arrays({"x": np.zeros(1)})


def test_one_hot_actions_are_refused():
    with pytest.raises(UserError, match="continuous actions.*try dqn"):
        make_agent(VECTOR, ONEHOT)
