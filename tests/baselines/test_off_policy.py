"""D4PG and DQN: losses against NumPy, what an update must not change, and that they learn."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from small_agent import CONTINUOUS, IMAGE, ONEHOT
from small_baseline import VECTOR, arrays_come_back, make_agent, set_apart

from baselines.d4pg import ValueRangeWarning, act, logits
from baselines.dqn import values
from baselines.off_policy import OffPolicy
from dreamer.agent.exploration import Exploration
from dreamer.config.config import load_config
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.training.trainer import NonFiniteError, NonFiniteGuard

ONE_ACTION = Space((1,), np.dtype(np.float32), -1.0, 1.0)
AGENTS = pytest.mark.parametrize("name", ["d4pg", "dqn"])


def make(name: str, obs_space=VECTOR, **overrides: Any) -> OffPolicy:
    space = ONE_ACTION if name == "d4pg" else ONEHOT
    return make_agent(name, obs_space, space, **overrides)


def episode(name: str, seed: int = 0, obs_space=VECTOR) -> dict[str, np.ndarray]:
    """For d4pg one action: the nearer it is to 0.5, the better. For dqn two one-hot actions: the
    first pays 0.1 for action 0, the second 1 for action 2."""
    rng = np.random.default_rng(seed)
    length = 2 if name == "d4pg" else 3
    obs = {k: np.stack([s.sample(rng) for _ in range(length)]) for k, s in obs_space.items()}
    cont = np.array([1, 1, 0], np.float32)[-length:]
    if name == "d4pg":
        action = rng.uniform(-1, 1, (2, 1)).astype(np.float32)
        reward = np.array([0, 1 - 2 * abs(action[1, 0] - 0.5)], np.float32)
    else:
        if "place" in obs:
            obs["place"] = np.array([[0, 0], [1, 0], [0, 1]], np.float32)
        choice = rng.integers(3, size=3)
        action = np.eye(3, dtype=np.float32)[choice]
        reward = np.array([0, 0.1 * (choice[1] == 0), choice[2] == 2], np.float32)
    return {**obs, "action": action, "reward": reward, "cont": cont}


def filled(name: str, count: int = 5, obs_space=VECTOR, **overrides: Any) -> OffPolicy:
    """An agent that remembers episodes."""
    agent = make(name, obs_space, **overrides)
    for seed in range(count):
        agent.memory.add(episode(name, seed, obs_space))
    return agent


def long_episode(reward: np.ndarray) -> dict[str, np.ndarray]:
    repeated = {k: np.repeat(v[-1:], len(reward), 0) for k, v in episode("d4pg").items()}
    return {**repeated, "reward": reward.astype(np.float32)}


def test_d4pgs_losses_are_the_formulas():
    agent = filled("d4pg", 20, d4pg__v_max=5.0, d4pg__target_period=1000)
    set_apart(agent._target)
    batch = {k: v[0] for k, v in agent.memory.sample(0, 1, 6).items()}
    batch["factor"] = np.full(6, 0.5, np.float32)
    batch["weight"] = np.linspace(0.1, 1, 6, dtype=np.float32)
    nets, copy, z = agent._nets, agent._target, np.linspace(0, 5, 11)
    feat, later = batch["vector"], batch["next_vector"]
    softmax = lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)  # noqa: E731
    probs = softmax(logits(copy, later, act(copy, later)).numpy())
    target = np.zeros((6, 11))
    for row, j in np.ndindex(6, 11):
        b = np.clip(batch["return"][row] + 0.5 * z[j], 0, 5) / 0.5
        low = min(int(b), 9)
        target[row, low] += probs[row, j] * (low + 1 - b)
        target[row, low + 1] += probs[row, j] * (b - low)
    cross = -(target * np.log(softmax(logits(nets, feat, batch["action"]).numpy()))).sum(-1)
    value = softmax(logits(nets, feat, act(nets, feat)).numpy()) @ z
    metrics, errors = agent.update_once(
        {k: tf.constant(v) for k, v in batch.items()}, tf.constant(1)
    )
    np.testing.assert_allclose(errors, cross, rtol=1e-4)
    np.testing.assert_allclose(metrics["critic_loss"], (batch["weight"] * cross).mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["actor_loss"], -value.mean(), rtol=1e-4)


def test_dqns_loss_is_the_formula():
    """The online network chooses and the target one values; Huber's loss has both its parts."""
    agent = make("dqn", dqn__target_period=1000)
    set_apart(agent._target)
    rng = np.random.default_rng(8)
    batch = {
        "vector": rng.normal(size=(12, 2)), "next_vector": rng.normal(size=(12, 2)),
        "action": np.eye(3)[rng.integers(3, size=12)], "return": 2 * rng.normal(size=12),
        "factor": rng.random(12), "weight": rng.random(12),
    }  # fmt: skip
    batch = {key: value.astype(np.float32) for key, value in batch.items()}
    online, later, copy = (
        values(nets, {"vector": batch[key]}).numpy()
        for nets, key in ((agent._nets, "vector"), (agent._nets, "next_vector"),
                          (agent._target, "next_vector"))
    )  # fmt: skip
    errors, losses = np.zeros(12), np.zeros(12)
    for i in range(12):
        target = batch["return"][i] + batch["factor"][i] * copy[i, later[i].argmax()]
        errors[i] = target - online[i] @ batch["action"][i]
        size = abs(errors[i])
        losses[i] = batch["weight"][i] * (size**2 / 2 if size < 1 else size - 0.5)
    assert (later.argmax(-1) != copy.argmax(-1)).any()
    assert 0 < (np.abs(errors) < 1).sum() < 12
    metrics, found = agent.update_once(
        {k: tf.constant(v) for k, v in batch.items()}, tf.constant(1)
    )
    np.testing.assert_allclose(found, errors, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"], losses.mean(), rtol=1e-4)


@AGENTS
@pytest.mark.usefixtures("eagerly")
def test_each_loss_moves_its_own_part_and_targets_wait(name: str):
    agent = filled(name, 3, IMAGE, **{f"{name}__target_period": 2})

    def parts() -> dict[str, np.ndarray]:
        return {k: v.numpy().copy() for k, v in agent.variables().items() if "adam" not in k}

    before = parts()
    agent.train_step(agent.memory.sample(1, 1, 4), 1)  # no copy after update 1
    after = parts()
    moved = {key for key in before if not np.array_equal(before[key], after[key])}
    assert moved and all(key.startswith("nets/") for key in moved)
    for part in ("torso", "actor", "critic") if name == "d4pg" else ("torso", "head"):
        assert any(f"/{part}/" in key for key in moved), part
    agent.train_step(agent.memory.sample(2, 1, 4), 2)
    copied = parts()
    for key, value in copied.items():
        if key.startswith("nets/"):
            np.testing.assert_array_equal(value, copied[key.replace("nets", "target")])


def test_returns_are_of_the_steps_asked_for():
    for steps, expected in ((1, 1.0), (3, 3.0)):
        agent = make("d4pg", d4pg__n_step=steps, d4pg__gamma=1.0)
        agent.memory.add(long_episode(np.ones(9)))
        assert agent.memory.sample(0, 1, 50)["return"].max() == expected


@pytest.mark.parametrize(("clip", "expected"), [(True, {-1, 0.5}), (False, {-9, 0.5})])
def test_rewards_are_clipped_where_that_is_asked_for(clip: bool, expected: set[float]):
    agent = make("dqn", dqn__clip_rewards=clip, dqn__n_step=1)
    agent.memory.add({**episode("dqn"), "reward": np.array([0, -9, 0.5], np.float32)})
    assert set(agent.memory.sample(0, 1, 50)["return"][0]) == expected


def test_returns_beyond_the_atoms_are_told_once():
    agent = make("d4pg", d4pg__v_max=5.0, d4pg__gamma=0.5)
    reward = np.array([9, *[2.5] * 8])  # returns just below 5; the first is no one's
    with warnings.catch_warnings():
        warnings.simplefilter("error", ValueRangeWarning)
        agent.remember(long_episode(reward))
        with pytest.raises(ValueRangeWarning, match="go from 0 to 5.977, beyond"):
            agent.remember(long_episode(np.full(9, 3)))
        agent.remember(long_episode(-reward))
    with pytest.warns(ValueRangeWarning, match="go from -19.31 to 0, beyond d4pg.v_min"):
        make("d4pg").remember(long_episode(-reward))


def test_groups_are_the_same_updates_as_one_by_one():
    arrays = {}
    for group in (1, 3):
        agent = filled("d4pg", d4pg__group=group)
        batch = agent.memory.sample(0, 3, 8)
        for first in range(0, 3, group):
            agent.train_step({k: v[first : first + group] for k, v in batch.items()}, first)
        arrays[group] = agent.state_arrays()
    for key, value in arrays[1].items():
        np.testing.assert_allclose(value, arrays[3][key], atol=1e-6, err_msg=key)


def test_updates_of_a_group_that_are_not_finite_are_counted_one_by_one(tmp_path: Path):
    agent = filled("d4pg")
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
def test_d4pg_finds_the_best_action_of_a_bandit(alpha: float):
    agent = filled(
        "d4pg", 150, d4pg__alpha=alpha, d4pg__units=32, d4pg__actor_lr=3e-4, d4pg__critic_lr=1e-2,
        d4pg__v_min=-2.0, d4pg__v_max=1.0, d4pg__atoms=21, d4pg__n_step=1,
    )  # fmt: skip
    for first in range(0, 600, 100):
        agent.train_step(agent.memory.sample(first, 100, 32), first)
    timesteps = {"place": np.zeros((1, 2), np.float32), "is_first": np.array([True])}
    action, _ = agent.policy(timesteps, None, "eval")
    assert abs(action[0, 0] - 0.5) < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_dqn_learns_the_values_of_a_chain(alpha: float):
    agent = filled(
        "dqn", 90, dqn__alpha=alpha, dqn__units=32, dqn__lr=3e-3, dqn__n_step=1,
        dqn__target_period=20, dqn__gamma=0.9,
    )  # fmt: skip
    for first in range(0, 600, 50):
        agent.train_step(agent.memory.sample(first, 50, 32), first)
    found = values(agent._nets, {"vector": np.array([[0, 0], [1, 0]], np.float32)})
    np.testing.assert_allclose(found, [[1.0, 0.9, 0.9], [0, 0, 1]], atol=0.1)


def test_d4pg_acts_reproducibly_and_with_noise_in_training_alone():
    agent, other = make("d4pg", IMAGE), make("d4pg", IMAGE)
    image = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
    timesteps = {"image": image, "is_first": np.array([True, True])}
    first, state = agent.policy(timesteps, None, "train")
    assert state["image"].shape == (2, 64, 64, 9)
    assert first.shape == (2, 1) and np.abs(first).max() <= 1
    np.testing.assert_array_equal(first, other.policy(timesteps, None, "train")[0])
    assert (agent.policy(timesteps, None, "train")[0] != first).any()
    calm = agent.policy(timesteps, None, "eval")[0]
    np.testing.assert_array_equal(calm, agent.policy(timesteps, None, "eval")[0])


def test_dqns_images_are_gray_and_stacked_and_epsilon_falls():
    agent = make("dqn", IMAGE)
    image = np.random.default_rng(0).integers(0, 255, (50, 64, 64, 3), dtype=np.uint8)
    timesteps = {"image": image, "is_first": np.ones(50, bool)}
    action, state = agent.policy(timesteps, None, "train")
    assert state["image"].shape == (50, 64, 64, 4)
    assert (action.sum(-1) == 1).all() and len(np.unique(action.argmax(-1))) == 3
    agent.progress(10**9, 0)
    greedy = [agent.policy(timesteps, None, "train")[0].argmax(-1) for _ in range(2)]
    assert (greedy[0] == greedy[1]).mean() > 0.6


def test_d4pgs_evaluations_ask_the_actor_though_training_acts_at_random():
    agent = make("d4pg", explore__kind="random")
    timesteps = {"place": np.ones((3, 2), np.float32), "is_first": np.ones(3, bool)}
    actor = act(agent._nets, tf.ones([3, 2]))
    np.testing.assert_allclose(agent.policy(timesteps, None, "eval")[0], actor, atol=1e-6)
    assert len(np.unique(agent.policy(timesteps, None, "train")[0])) == 3


@pytest.mark.parametrize(("kind", "epsilon"), [("random", 0.0), ("none", 0.3)])
def test_dqns_evaluations_are_greedy_but_for_their_own_epsilon(kind: str, epsilon: float):
    agent = make("dqn", explore__kind=kind, dqn__eval_epsilon=epsilon)
    timesteps = {"place": np.ones((2000, 2), np.float32), "is_first": np.ones(2000, bool)}
    best = values(agent._nets, {"vector": tf.ones([1, 2])}).numpy().argmax()
    action, _ = agent.policy(timesteps, None, "eval")
    # A random action may be the best one too: a third of them is.
    assert abs((action.argmax(-1) != best).mean() - epsilon * 2 / 3) < 0.04


def test_on_atari_epsilon_has_fallen_after_four_million_frames():
    config = load_config(agent="dqn", task="atari_pong")
    explore = Exploration(ONEHOT, **config.section("explore"))
    # One update every 16 frames: a noise scale that counts those would hardly have moved.
    scales = [explore.noise_scale(frames, frames // 16) for frames in (0, 2_000_000, 4_000_000)]
    np.testing.assert_allclose(scales, [1.0, 0.55, 0.1])


@AGENTS
@pytest.mark.usefixtures("eagerly")
def test_arrays_bring_everything_back(name: str):
    agent, other = filled(name), filled(name, seed=1)
    batch = agent.memory.sample(0, 2, 8)
    agent.train_step(batch, 0)
    arrays_come_back(agent, other, lambda one: one.train_step(batch, 2))
    with pytest.raises(ValueError, match="not this agent's"):
        other.load_arrays({"x": np.zeros(1)})


@AGENTS
@pytest.mark.usefixtures("eagerly")
def test_learning_rates_follow_the_schedule(name: str):
    values = {"optimizer__decay": "linear", "optimizer__decay_updates": 4}
    falling, constant = filled(name, **values), filled(name)
    falling.train_step(falling.memory.sample(0, 1, 8), 3)
    rates = [v for key, v in falling.variables().items() if key.endswith("learning_rate")]
    own = [v.numpy() for key, v in constant.variables().items() if key.endswith("learning_rate")]
    assert rates and [v.numpy() for v in rates] == pytest.approx([0.25 * rate for rate in own])
    constant.load_arrays(falling.state_arrays())
    again = constant.variables().items()
    assert [v.numpy() for key, v in again if key.endswith("learning_rate")] == own


@AGENTS
def test_other_actions_are_refused(name: str):
    space = ONEHOT if name == "d4pg" else CONTINUOUS
    text = "takes continuous .*try dqn" if name == "d4pg" else "takes one-hot .*try d4pg"
    with pytest.raises(UserError, match=text):
        make_agent(name, VECTOR, space)
