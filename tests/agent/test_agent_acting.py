"""The agent: acting, exploring, remembering."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from small_agent import (
    ONEHOT,
    VECTORS,
    make_agent,
    make_batch,
    make_timesteps,
    update,
)

pytestmark = pytest.mark.usefixtures("eagerly")


def test_rows_do_not_know_of_each_other() -> None:
    agent, twin = make_agent(), make_agent()
    timesteps, changed = make_timesteps(), make_timesteps(seed=9)
    for key in timesteps:
        changed[key][2] = timesteps[key][2]
    state, other = None, None
    for mode in ("train", "eval", "train"):
        action, state = agent.policy(timesteps, state, mode)
        twins, other = twin.policy(changed, other, mode)
        np.testing.assert_array_equal(action[2], twins[2])
        assert (action[[0, 1, 3]] != twins[[0, 1, 3]]).any(-1).all()


def test_rows_with_is_first_start_anew() -> None:
    """Whatever the state holds: like a policy that begins, at the same count of calls."""
    agent, fresh = make_agent(), make_agent()
    timesteps = make_timesteps()
    state = None
    for seed in range(3):
        _, state = agent.policy(make_timesteps(seed=seed), state)
        fresh.policy(make_timesteps(seed=seed), None)
    timesteps["is_first"][1] = True
    action, after = agent.policy(timesteps, state)
    anew, started = fresh.policy({**timesteps, "is_first": np.ones(4, bool)}, None)
    np.testing.assert_array_equal(action[1], anew[1])
    np.testing.assert_array_equal(after["deter"][1], started["deter"][1])
    assert (after["deter"].numpy()[[0, 2, 3]] != started["deter"].numpy()[[0, 2, 3]]).any(-1).all()


def test_the_policy_remembers() -> None:
    """The state carries the past: the same timestep after other timesteps gives another state."""
    agent, twin = make_agent(), make_agent()
    _, one = agent.policy(make_timesteps(seed=1, first=True), None)
    _, two = twin.policy(make_timesteps(seed=2, first=True), None)
    _, one = agent.policy(make_timesteps(seed=3), one)
    _, two = twin.policy(make_timesteps(seed=3), two)
    assert not np.allclose(one["deter"], two["deter"])


def test_the_policys_state_is_the_models_filter() -> None:
    """Acting filters as learning does: deter after three timesteps is that of `observe`."""
    agent = make_agent()
    model, state, rows, actions = agent.world_model, None, [], [np.zeros((4, 2), np.float32)]
    stochs, deters = [], []
    for t in range(3):
        timesteps = make_timesteps(seed=t, first=t == 0)
        action, state = agent.policy(timesteps, state)
        rows.append(timesteps)
        actions.append(action)
        stochs.append(state["stoch"].numpy())
        deters.append(state["deter"].numpy())
    for t in range(3):
        before = {"stoch": np.zeros((4, 4)), "deter": np.zeros((4, 16))}
        if t:
            before = {"stoch": stochs[t - 1], "deter": deters[t - 1]}
        before = {k: tf.constant(v, tf.float32) for k, v in before.items()}
        expected = model.rssm.imagine_step(before, actions[t], tf.zeros([4, 4]))["deter"]
        np.testing.assert_allclose(deters[t], expected, rtol=1e-4, atol=1e-6)


def test_evaluation_takes_the_mode_and_no_noise() -> None:
    wild = make_agent(explore__noise_scale=50.0)
    calm = make_agent(explore__kind="none")
    assert (np.abs(wild.policy(make_timesteps(), None, "train")[0]) == 1.0).all()
    assert (np.abs(calm.policy(make_timesteps(), None, "train")[0]) < 1.0).any()
    action, state = wild.policy(make_timesteps(), None, "eval")
    twin, _ = calm.policy(make_timesteps(), None, "eval")
    np.testing.assert_array_equal(action, twin)
    latent = {k: v for k, v in state.items() if k != "action"}
    dist = wild.actor.dist(wild.world_model.rssm.feat(latent))
    _, densities = dist.from_noise(tf.random.stateless_normal([50, 4, 2], [1, 2]))
    assert (dist.log_prob(action) > np.median(densities, 0)).numpy().all()


def test_exploration_noise_has_the_size_asked_for() -> None:
    """Around the sample of an actor without noise of its own; clipped to the actions' range."""
    settings = {"actor__init_std": 0.01, "actor__min_std": 0.0}
    timesteps = make_timesteps(count=2000)
    plain = make_agent(**settings, explore__kind="none").policy(timesteps, None)[0]
    noisy = make_agent(**settings, explore__noise_scale=0.2).policy(timesteps, None)[0]
    assert np.abs(noisy).max() <= 1.0
    inside = np.abs(plain) < 0.3
    assert inside.sum() > 200
    difference = (noisy - plain)[inside]
    assert np.std(difference) == pytest.approx(0.2, rel=0.15)
    assert np.mean(difference) == pytest.approx(0.0, abs=0.03)


def test_the_stored_action_is_the_noisy_one() -> None:
    agent = make_agent(explore__noise_scale=50.0)
    action, state = agent.policy(make_timesteps(), None)
    np.testing.assert_array_equal(state["action"], action)


def test_onehot_actions() -> None:
    agent = make_agent(VECTORS, ONEHOT, explore__kind="epsilon", explore__noise_scale=0.0)
    timesteps = make_timesteps(count=50)
    for mode in ("train", "eval"):
        action, state = agent.policy(timesteps, None, mode)
        assert action.dtype == np.float32
        np.testing.assert_allclose(action.sum(-1), 1.0, rtol=1e-6)
        assert set(np.unique(action.round(6))) == {0.0, 1.0}
    logits = agent.actor(agent.world_model.rssm.feat(state))
    np.testing.assert_array_equal(action.argmax(-1), np.argmax(logits, -1))
    metrics = update(agent, make_batch(VECTORS, ONEHOT))
    assert all(np.isfinite(v) for v in metrics.values())
    assert 0.0 < metrics["actor_entropy"] < 2 * np.log(3)


def test_epsilon_is_the_share_of_uniform_actions() -> None:
    """A sure actor leaves its choice only by exploring: epsilon * (A - 1) / A of the time."""
    timesteps = make_timesteps(count=3000)
    agent = make_agent(VECTORS, ONEHOT, explore__kind="epsilon", explore__noise_scale=0.3)
    agent.actor.trainable_variables[-1].assign([0.0, 500.0, 0.0])
    action, _ = agent.policy(timesteps, None)
    share = np.mean(action.argmax(-1) != 1)
    assert share == pytest.approx(0.3 * 2 / 3, abs=0.03)
    evaluated, _ = agent.policy(timesteps, None, "eval")
    assert (evaluated.argmax(-1) == 1).all()


def test_exploration_follows_the_progress_that_the_agent_is_told() -> None:
    agent = make_agent(
        VECTORS, ONEHOT, explore__kind="epsilon", explore__noise_scale=1.0,
        explore__decay_steps=100, explore__unit="updates",
    )  # fmt: skip
    agent.actor.trainable_variables[-1].assign([0.0, 500.0, 0.0])
    timesteps = make_timesteps(count=2000)
    for number, epsilon in ((0, 1.0), (50, 0.5), (100, 0.0), (1000, 0.0)):
        agent.progress(10**6, number)
        action, _ = agent.policy(timesteps, None)
        share = np.mean(action.argmax(-1) != 1)
        assert share == pytest.approx(epsilon * 2 / 3, abs=0.04)


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="'train' or 'eval', but is 'test'"):
        make_agent().policy(make_timesteps(), None, "test")
