"""Every variant of model and behaviour: what it trains, its numbers, acting, whole runs."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from small_agent import CONTINUOUS, ONEHOT, VECTORS, make_agent, make_batch, make_timesteps, weights

from dreamer.agent import behavior
from dreamer.agent.behavior import Behavior
from dreamer.errors import UserError
from dreamer.ops.returns import replayed_returns
from dreamer.ops.seeds import Purpose, make_seeds

PLANNER = {
    "behavior.policy": "planner", "planner.candidates": 8, "planner.num_elites": 3,
    "planner.iterations": 2, "planner.horizon": 3,
}  # fmt: skip
ENSEMBLE = {"disagreement.members": 3, "disagreement.units": 8, "disagreement.layers": 1}
RATES, EPS, CLIP = {"model": 0.3, "actor": 0.6, "value": 0.9}, 0.5, 0.01
pytestmark = pytest.mark.usefixtures("eagerly")


def agent_with(values: dict[str, Any], act_space=CONTINUOUS):
    return make_agent(
        VECTORS, act_space, **{k.replace(".", "__"): v for k, v in values.items()}
    )


def first_steps(values: dict[str, Any], step: int = 0) -> dict[str, float]:
    """For each part that an agent's first update moves, the norm of the change of its weights."""
    rates = {f"optimizer.{name}_lr": rate for name, rate in RATES.items()}
    agent = agent_with({**values, **rates, "optimizer.eps": EPS, "optimizer.clip": CLIP})
    agent.progress(step, 0)
    before, found = weights(agent), Counter()
    agent.train_step(make_batch(), 0)
    for key, value in weights(agent).items():
        found[key.partition("/")[0]] += float(np.sum((value - before[key]) ** 2))
    return {part: np.sqrt(square) for part, square in found.items() if square}


def test_each_variant_trains_its_parts_alone_and_as_the_config_says():
    """Where epsilon is far above the clipped gradient g, Adam's first step is like g."""
    assert set(first_steps({"behavior.value": False})) == {"model", "actor"}
    assert set(first_steps(PLANNER)) == {"model"}
    assert set(first_steps({**PLANNER, "planner.returns": "lambda"})) == {"model", "value"}
    explorers = {"ensemble": "model", "explorer": "actor", "explorer_value": "value"}
    likes = explorers | {part: part for part in RATES}
    expected = {part: RATES[like] * 0.001**0.5 * CLIP / EPS for part, like in likes.items()}
    exploring = {"disagreement.until": 10, **ENSEMBLE}
    assert first_steps(exploring, 9) == pytest.approx(expected, rel=1e-2)
    assert set(first_steps(exploring, 10)) == set(RATES)


def test_the_task_is_learnt_as_if_there_were_no_explorer():
    """The same model, actor and value after an update: the explorer changes the data alone."""
    plain, explorer = agent_with({}), agent_with({"disagreement.until": 10, **ENSEMBLE})
    for agent in (plain, explorer):
        agent.train_step(make_batch(), 0)
    theirs = explorer.state_arrays()
    for key, value in plain.state_arrays().items():
        np.testing.assert_array_equal(value, theirs[key], err_msg=key)


def test_the_explorer_collects_until_then_and_never_evaluates():
    sure = {"actor.init_std": 0.01, "explore.kind": "none"}
    agent = agent_with({"disagreement.until": 10, **sure, **ENSEMBLE})
    for bias, actor in ((500.0, agent.networks.explorer), (-500.0, agent.networks.actor)):
        mean = actor.trainable_variables[-1]
        mean.assign([bias, bias, *mean.numpy()[2:]])
    timesteps = make_timesteps()
    for step, mode, sign in ((0, "train", 1), (9, "train", 1), (9, "eval", -1), (10, "train", -1)):
        agent.progress(step, 0)
        action, _ = agent.policy(timesteps, None, mode)
        assert (np.sign(action) == sign).all(), (step, mode)


@pytest.mark.parametrize("values", [{"behavior.value": False}, {"behavior.horizon": 1}])
def test_an_explorer_needs_a_value_network_and_two_steps(values):
    with pytest.raises(UserError, match="disagreement.until needs"):
        agent_with({"disagreement.until": 10, **values})


def posterior(agent, batch, update: int = 0):
    tensors = {k: tf.constant(batch[k]) for k in agent._batch_keys()}
    seed = make_seeds(0, Purpose.LATENT, tf.constant(update))[0]
    noise = tf.random.stateless_normal([*batch["reward"].shape, 4], seed)
    return agent.world_model.loss(tensors, noise)[1], tensors


def test_the_ensemble_learns_the_next_latent_mean_within_episodes():
    agent, batch = agent_with({"disagreement.until": 10, **ENSEMBLE}), make_batch()
    post, tensors = posterior(agent, batch)
    losses, metrics = agent._learner.ensemble_loss(post, tensors)
    feat = agent.world_model.rssm.feat(post).numpy()
    errors, variances = [], []
    for b in range(batch["reward"].shape[0]):
        for t in range(batch["reward"].shape[1] - 1):
            inputs = np.concatenate([feat[b, t], batch["action"][b, t + 1]])[None]
            means = agent.networks.ensemble(inputs).numpy()[:, 0]
            variances.append(means.var(0).mean())
            if not batch["is_first"][b, t + 1]:
                target = post["mean"].numpy()[b, t + 1]
                errors.append(0.5 * ((means - target) ** 2).sum(-1).mean())
    assert len(errors) == len(variances) - 1  # row 1 begins anew in its middle
    assert float(losses["ensemble"]) == pytest.approx(np.mean(errors), rel=1e-4)
    assert float(metrics["replayed_disagreement"]) == pytest.approx(np.mean(variances), rel=1e-3)


def test_the_explorers_reward_is_the_disagreement_about_each_step(monkeypatch):
    values = {"disagreement.until": 10, "discount.enabled": True, **ENSEMBLE}
    agent, batch = agent_with(values), make_batch()
    post, tensors = posterior(agent, batch)
    seen = []

    def spy(self, trajectory, reward, *heads):
        seen.append((trajectory, reward))
        return original(self, trajectory, reward, *heads)

    original = Behavior.losses
    monkeypatch.setattr(Behavior, "losses", spy)
    losses, _ = agent._learner.explorer_losses(post, tensors, tf.constant(0))
    ((trajectory, reward),) = seen
    for row in range(0, reward.shape[0], 5):
        before = trajectory.start[row]
        for i in range(reward.shape[1]):
            inputs = tf.concat([before, trajectory.action[row, i]], 0)[None]
            expected = float(agent.networks.ensemble.disagreement(inputs)[0])
            assert float(reward[row, i]) == pytest.approx(expected, rel=1e-3)
            before = trajectory.feat[row, i]
    value, returns = agent.networks.explorer_value, Behavior(gamma=0.99, lambda_=0.95)
    expected, _ = original(returns, trajectory, reward, value, agent.world_model.discount)
    other, _ = original(returns, trajectory, reward, value, None)
    assert set(losses) == {"explorer", "explorer_value"}
    for ours, same, without in zip(*(x.values() for x in (losses, expected, other)), strict=True):
        assert float(ours) == pytest.approx(float(same), rel=1e-5)
        assert abs(float(ours) - float(without)) > 1e-3 * abs(float(ours))


def test_the_explorer_imagines_with_noise_of_its_own(monkeypatch):
    agent, batch = agent_with({"disagreement.until": 10, **ENSEMBLE}), make_batch()
    post, tensors = posterior(agent, batch)
    drawn, imagine = [], behavior.imagine

    def spy(rssm, actor, start, latent_noise, action_noise, score):
        drawn.extend([latent_noise.numpy(), action_noise.numpy()])
        return imagine(rssm, actor, start, latent_noise, action_noise, score)

    monkeypatch.setattr(behavior, "imagine", spy)
    agent._learner.behavior_losses(post, tensors, tf.constant(0))
    agent._learner.explorer_losses(post, tensors, tf.constant(0))
    latent, action, explorers_latent, explorers_action = drawn
    assert latent.shape == explorers_latent.shape and action.shape == explorers_action.shape
    assert (latent != explorers_latent).all() and (action != explorers_action).all()
    seed = make_seeds(0, Purpose.LATENT, tf.constant(0))[0]  # of the filtering
    assert not np.intersect1d(tf.random.stateless_normal([3 * 6 * 4], seed), drawn[0]).size


def literal_replayed(reward, value, pcont, is_first, lambda_):
    returns, counts = np.zeros(len(reward) - 1), np.zeros(len(reward) - 1)
    following = value[-1]
    for t in reversed(range(len(reward) - 1)):
        if is_first[t + 1] and pcont[t] > 0:  # a time limit: what followed is not known
            returns[t] = value[t]
        else:
            mixed = (1 - lambda_) * value[t + 1] + lambda_ * following
            returns[t], counts[t] = reward[t] + pcont[t] * mixed, 1.0
        following = returns[t]
    return returns, counts


@pytest.mark.parametrize("lambda_", [0.0, 0.7, 1.0])
def test_replayed_returns_are_the_literal_ones(lambda_: float):
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, 5, 9)).astype(np.float32)
    is_first = rng.random((5, 9)) < 0.3
    terminal = np.roll(is_first, -1, 1) & (rng.random((5, 9)) < 0.5)
    pcont = np.where(terminal, 0.0, 0.9).astype(np.float32)
    returns, counts = replayed_returns(reward, value, pcont, tf.constant(is_first), lambda_)
    for row in range(5):
        expected = literal_replayed(reward[row], value[row], pcont[row], is_first[row], lambda_)
        np.testing.assert_allclose(returns[row], expected[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(counts[row], expected[1])


@pytest.mark.parametrize("kind", ["full", "deterministic_only"])
def test_the_planners_value_learns_those_returns(kind: str):
    """The returns are of transformed rewards, and of the states that the heads learn from."""
    values = {"planner.returns": "lambda", "rssm.kind": kind, "reward.transform": "tanh"}
    agent = agent_with({**PLANNER, **values})
    batch = make_batch()
    post, tensors = posterior(agent, batch)
    losses, _ = agent._learner.replayed_value_loss(post, tensors)
    model, noise = agent.world_model, tf.zeros([3, 6, 4])[..., : agent.world_model.noise_size]
    _, prior = model.observe(tensors, noise)
    feat = model.rssm.feat(prior if kind == "deterministic_only" else post)
    total = []
    for row in range(batch["reward"].shape[0]):
        values = np.float64(agent.value(feat[row]))
        returns, counts = literal_replayed(
            np.tanh(batch["reward"][row]), values, 0.99 * batch["cont"][row],
            batch["is_first"][row], 0.95,
        )  # fmt: skip
        total.append(counts * (0.5 * (returns - values[:-1]) ** 2 + 0.5 * np.log(2 * np.pi)))
    assert float(losses["value"]) == pytest.approx(np.mean(total), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("values", [PLANNER, {"disagreement.until": 10, **ENSEMBLE}])
@pytest.mark.parametrize("act_space", [CONTINUOUS, ONEHOT])
def test_graphs_are_made_once_for_each_phase(values, act_space):
    tf.config.run_functions_eagerly(False)
    agent = agent_with(values, act_space)
    state = None
    phases = 1 + ("disagreement.until" in values)
    for step in range(0, 20, 4):
        agent.progress(step, step)
        agent.train_step(make_batch(VECTORS, act_space, seed=step), step)
        _, state = agent.policy(make_timesteps(seed=step), state)
    assert agent._update.experimental_get_tracing_count() == phases
    assert agent._act.experimental_get_tracing_count() == phases


@pytest.mark.parametrize("kind", ["full", "stochastic_only", "deterministic_only"])
@pytest.mark.parametrize("policy", [{}, PLANNER], ids=["actor", "planner"])
def test_every_kind_acts_learns_and_predicts(kind: str, policy: dict) -> None:
    agent = agent_with({"rssm.kind": kind, **policy})
    state = None
    for step in range(3):
        action, state = agent.policy(make_timesteps(first=step == 0, seed=step), state)
        assert action.shape == (4, 2) and np.abs(action).max() <= 1.0
    metrics = agent.train_step(make_batch(), 0)
    assert all(np.isfinite(float(v)) for v in metrics.values())
    assert {float(v) for k, v in metrics.items() if k.endswith("_finite")} == {1.0}
    shown = agent.predict(make_batch(), context=3)
    for key in (*VECTORS, "reward"):
        assert shown[f"model/{key}"].shape == shown[f"truth/{key}"].shape
        assert np.isfinite(shown[f"model/{key}"]).all()


def test_disagreement_needs_a_latent() -> None:
    with pytest.raises(UserError, match="disagreement.until needs a stochastic latent"):
        make_agent(rssm__kind="deterministic_only", disagreement__until=100)


LAYERS = {
    "v2": {"rssm.gru_norm": True, "layers.activation": "elu"},
    "v3": {
        "layers.activation": "silu", "layers.norm": "rms", "layers.init": "trunc_normal",
        "rssm.blocks": 4,
    },
}  # fmt: skip


@pytest.mark.parametrize("recipe", LAYERS)
def test_other_layers_all_learn_and_come_back(recipe: str):
    agent, again = (agent_with(LAYERS[recipe]) for _ in range(2))
    variables = sum(len(network.variables) for network in agent.networks.named().values())
    assert len(weights(agent)) == variables + 1  # their names differ; policy_calls
    before, batch = weights(agent), make_batch()
    agent.train_step(batch, 0)
    after = weights(agent)
    still = {k for k in before if np.array_equal(before[k], after[k])}
    assert not any("rssm" in k or "finish" in k or "dense" in k for k in still), still
    again.load_arrays(agent.state_arrays())
    for key, value in agent.state_arrays().items():
        np.testing.assert_array_equal(again.state_arrays()[key], value, err_msg=key)
    action, twin = (other.policy(make_timesteps(), None)[0] for other in (agent, again))
    np.testing.assert_array_equal(action, twin)
