"""DQN's target and loss against the formulas, and that it learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from small_agent import CONTINUOUS, IMAGE, ONEHOT
from small_baseline import VECTOR, set_apart
from small_baseline import make_agent as agent_of

from baselines.dqn import DQN, double_q_target, huber, values
from dreamer.agent.exploration import Exploration
from dreamer.config.config import load_config
from dreamer.errors import UserError


def make_agent(obs_space=VECTOR, act_space=ONEHOT, **overrides: Any) -> DQN:
    return agent_of("dqn", obs_space, act_space, **overrides)


def chain(obs_space, seed: int) -> dict[str, np.ndarray]:
    """Two random actions; the first pays 0.1 for action 0, the second 1 for action 2."""
    rng = np.random.default_rng(seed)
    obs = {k: np.stack([s.sample(rng) for _ in range(3)]) for k, s in obs_space.items()}
    if "place" in obs:
        obs["place"] = np.array([[0, 0], [1, 0], [0, 1]], np.float32)
    choice = rng.integers(3, size=3)
    reward = np.array([0, 0.1 * (choice[1] == 0), choice[2] == 2], np.float32)
    action = np.eye(3, dtype=np.float32)[choice]
    return {**obs, "action": action, "reward": reward, "cont": np.array([1, 1, 0], np.float32)}


def test_the_online_network_chooses_and_the_target_one_values():
    rng = np.random.default_rng(0)
    online, target = rng.normal(size=(2, 20, 4)).astype(np.float32)
    returns, factor = rng.normal(size=(2, 20)).astype(np.float32)
    found = double_q_target(returns, factor, tf.constant(online), tf.constant(target))
    literal = [returns[i] + factor[i] * target[i, online[i].argmax()] for i in range(20)]
    np.testing.assert_allclose(found, literal, rtol=1e-5)


def test_huber_is_quadratic_within_one_and_linear_beyond():
    np.testing.assert_allclose(huber(tf.constant([0.5, -1.0, 3.0])), [0.125, 0.5, 2.5])
    x = tf.Variable([0.5, -1.0, 3.0, -9.0])
    with tf.GradientTape() as tape:
        y = huber(x)
    np.testing.assert_allclose(tape.gradient(y, x), [0.5, -1, 1, -1])


def test_the_loss_is_the_formula():
    agent = make_agent(dqn__target_period=1000)
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
    assert (later.argmax(-1) != copy.argmax(-1)).any()
    errors, losses = np.zeros(12), np.zeros(12)
    for i in range(12):
        target = batch["return"][i] + batch["factor"][i] * copy[i, later[i].argmax()]
        errors[i] = target - online[i] @ batch["action"][i]
        size = abs(errors[i])
        losses[i] = batch["weight"][i] * (size**2 / 2 if size < 1 else size - 0.5)
    metrics, found = agent.update_once(
        {k: tf.constant(v) for k, v in batch.items()}, tf.constant(1)
    )
    np.testing.assert_allclose(found, errors, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"], losses.mean(), rtol=1e-4)


def test_the_target_network_waits_for_its_period():
    agent = make_agent(dqn__target_period=2, dqn__clip_rewards=False)
    for seed in range(3):
        agent.memory.add(chain(VECTOR, seed))

    def equal() -> list[bool]:
        pairs = zip(agent._nets.variables, agent._target.variables, strict=True)
        return [np.array_equal(source, target) for source, target in pairs]

    agent.train_step(agent.memory.sample(1, 1, 8), 1)  # no copy after update 1
    assert not all(equal())
    agent.train_step(agent.memory.sample(2, 1, 8), 2)
    assert all(equal())


@pytest.mark.parametrize(("clip", "expected"), [(True, {1.0}), (False, {9.0})])
def test_rewards_are_clipped_where_that_is_asked_for(clip: bool, expected: set[float]):
    agent = make_agent(dqn__clip_rewards=clip, dqn__n_step=1)
    agent.memory.add({**chain(VECTOR, 0), "reward": np.full(3, 9, np.float32)})
    assert set(agent.memory.sample(0, 1, 8)["return"][0]) == expected


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_it_learns_the_values_of_a_chain(alpha: float):
    agent = make_agent(
        dqn__alpha=alpha, dqn__units=32, dqn__lr=3e-3, dqn__n_step=1, dqn__target_period=20,
        dqn__gamma=0.9,
    )  # fmt: skip
    for seed in range(90):
        agent.memory.add(chain(VECTOR, seed))
    for first in range(0, 600, 50):
        agent.train_step(agent.memory.sample(first, 50, 32), first)
    found = values(agent._nets, {"vector": np.array([[0, 0], [1, 0]], np.float32)})
    np.testing.assert_allclose(found, [[1.0, 0.9, 0.9], [0, 0, 1]], atol=0.1)


def test_images_are_gray_and_stacked_and_epsilon_falls():
    agent = make_agent(IMAGE)
    image = np.random.default_rng(0).integers(0, 255, (50, 64, 64, 3), dtype=np.uint8)
    timesteps = {"image": image, "is_first": np.ones(50, bool)}
    action, state = agent.policy(timesteps, None, "train")
    assert state["image"].shape == (50, 64, 64, 4)
    assert (action.sum(-1) == 1).all() and len(np.unique(action.argmax(-1))) == 3
    agent.progress(10**9, 0)
    greedy = [agent.policy(timesteps, None, "train")[0].argmax(-1) for _ in range(2)]
    assert (greedy[0] == greedy[1]).mean() > 0.6
    agent.memory.add(chain(IMAGE, 0))
    assert np.isfinite(agent.train_step(agent.memory.sample(0, 1, 4), 0)["loss"])


@pytest.mark.parametrize(("kind", "epsilon"), [("random", 0.0), ("none", 0.3)])
def test_evaluations_are_greedy_but_for_their_own_epsilon(kind: str, epsilon: float):
    agent = make_agent(explore__kind=kind, dqn__eval_epsilon=epsilon)
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


def test_continuous_actions_are_refused():
    with pytest.raises(UserError, match="one-hot actions.*try d4pg"):
        make_agent(VECTOR, CONTINUOUS)
