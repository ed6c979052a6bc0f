"""PlaNet's own settings: five-bit images, action repeats by task, and that it plans and learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from small_agent import CONTINUOUS, IMAGE, ONEHOT, VECTORS, make_batch, make_timesteps
from small_baseline import make_agent as agent_of

from baselines.planet import quantise
from dreamer.agent.agent import Agent
from dreamer.config.config import load_config
from dreamer.errors import UserError


def make_agent(obs_space=IMAGE, act_space=CONTINUOUS, **overrides: Any) -> Agent:
    return agent_of("planet", obs_space, act_space, precision="float32", jit="off", **overrides)


@pytest.fixture(scope="module")
def agent() -> Agent:
    return make_agent()


def test_images_have_five_bits():
    values = tf.cast(tf.range(256), tf.uint8)
    bins = quantise(values).numpy()
    literal = np.floor(np.arange(256) / 8) / 32 - 0.5
    np.testing.assert_array_equal(bins, literal.astype(np.float32))
    assert len(np.unique(bins)) == 32


def test_the_noise_is_uniform_over_a_bin_and_a_function_of_the_update(agent: Agent):
    seen: list[np.ndarray] = []
    model = agent.world_model
    batch = {k: tf.constant(v) for k, v in make_batch(IMAGE).items()}
    embed = model.embed

    def look(obs):
        image = tf.reshape(obs["image"], batch["image"].shape)
        seen.append((image - quantise(batch["image"])).numpy())
        return embed(obs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "embed", look)
        for seed in (1, 1, 2):
            model.loss(batch, tf.random.stateless_normal([3, 6, model.noise_size], [0, seed]))
    assert seen[0].min() >= 0 and seen[0].max() <= 1 / 32 + 1e-6
    np.testing.assert_allclose(seen[0].mean(), 1 / 64, rtol=0.01)
    np.testing.assert_allclose(seen[0].std(), 1 / 32 / 12**0.5, rtol=0.01)
    np.testing.assert_array_equal(seen[0], seen[1])
    assert (seen[0] != seen[2]).mean() > 0.9


def test_it_plans_and_its_model_learns(agent: Agent, eagerly: None):
    assert agent.actor is None and agent.value is None
    timesteps = make_timesteps(IMAGE, 2, first=True)
    action, _ = agent.policy(timesteps, None, "eval")
    assert action.shape == (2, 2) and np.abs(action).max() <= 1
    metrics = agent.train_step(make_batch(IMAGE), 0)
    assert metrics["model_grad_finite"] == 1 and "actor_loss" not in metrics
    assert agent.predict(make_batch(IMAGE), 2)["model/image"].dtype == np.uint8


def test_settings_are_planets():
    repeats = {"cartpole_swingup": 8, "cartpole_balance": 8, "reacher_easy": 4, "cheetah_run": 4,
               "finger_spin": 2, "cup_catch": 4, "walker_walk": 2, "hopper_hop": 2,
               "ball_in_cup_catch": 4, "cartpole_three_poles": 8,
               "cartpole_swingup,dmc_cartpole_two_poles": 8}  # fmt: skip
    for task, repeat in repeats.items():
        config = load_config(agent="planet", task=f"dmc_{task}")
        assert config.envs.action_repeat == repeat, task
    assert load_config(
        agent="planet", task="dmc_cheetah_run", overrides={"envs.action_repeat": 3}
    ).envs.action_repeat == 3  # fmt: skip
    assert load_config(agent="planet", task="atari_pong").envs.action_repeat == 4
    assert (config.optimizer.model_lr, config.optimizer.eps, config.optimizer.clip) == (
        1e-3, 1e-4, 1000,
    )  # fmt: skip
    assert (config.planner.candidates, config.planner.num_elites, config.planner.iterations) == (
        1000, 100, 10,
    )  # fmt: skip


def test_several_tasks_that_need_different_repeats_are_told_apart():
    for others in ("dmc_walker_walk", "dmc_hopper_hop"):  # PlaNet's own, and the suite's
        tasks = f"dmc_cartpole_balance, {others}"
        with pytest.raises(UserError, match=r"different values .*give --envs.action_rep"):
            load_config(agent="planet", task=tasks)
        config = load_config(agent="planet", task=tasks, overrides={"envs.action_repeat": 4})
        assert config.envs.action_repeat == 4


def test_it_explores_one_hot_actions(eagerly: None):
    timesteps = make_timesteps(VECTORS, 4, first=True)
    action, _ = make_agent(VECTORS, ONEHOT).policy(timesteps, None, "train")
    assert (action.sum(-1) == 1).all() and set(np.unique(action)) == {0.0, 1.0}


def test_it_learns_without_a_latent_whose_noise_its_images_would_follow(eagerly: None):
    one = make_agent(rssm__kind="deterministic_only")
    losses = [one.train_step(make_batch(IMAGE), update)["image_loss"] for update in (0, 1)]
    assert np.isfinite(losses).all() and losses[0] != losses[1]
