"""SAC in the latent space: losses against NumPy, which networks each trains, and checkpoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from small_agent import CONTINUOUS, ONEHOT, VECTORS, make_batch
from small_baseline import make_agent as agent_of
from small_baseline import set_apart

from dreamer.agent.agent import Agent
from dreamer.errors import UserError
from dreamer.ops.seeds import Purpose, make_seeds


def make_agent(act_space=CONTINUOUS, **overrides: Any) -> Agent:
    return agent_of("latent_sac", VECTORS, act_space, precision="float32", jit="off", **overrides)


@pytest.fixture(scope="module")
def agent() -> Agent:
    return make_agent()


def test_the_losses_are_the_formulas(agent: Agent):
    batch = {k: tf.constant(v) for k, v in make_batch().items()}
    learner, parts = agent._learner, agent.networks
    set_apart(parts.target)
    feat = tf.random.stateless_normal([3, 6, parts.model.rssm.feat_size], [0, 1])
    with tf.GradientTape() as tape:
        losses, metrics = learner.losses(feat, batch, tf.constant(0))
    # The same policy's samples again, by the same noise.
    seed = make_seeds(0, Purpose.ACTIONS, tf.constant(0))[0]
    noise = tf.random.stateless_normal([3, 6, 2], seed)
    dist = parts.actor.dist(tf.reshape(feat, [18, -1]))
    action, log_prob = dist.from_noise(tf.reshape(noise, [18, 2]))
    log_prob = log_prob.numpy().reshape(3, 6)

    def values_of(critics, f, a) -> np.ndarray:
        return critics(tf.concat([f, a], -1)).numpy()

    value = values_of(parts.critic, tf.reshape(feat, [18, -1]), action).min(0).reshape(3, 6)
    np.testing.assert_allclose(metrics["temperature"], 0.1, rtol=1e-6)
    np.testing.assert_allclose(losses["actor"], (0.1 * log_prob - value).mean(), rtol=1e-4)
    excess = -log_prob.mean() + 2.0  # over minus one for each of two actions
    np.testing.assert_allclose(losses["temperature"], np.log(0.1) * excess, rtol=1e-4)
    # What is too random grows cheaper, and no policy on [-1, 1] is more random than log 2 for each.
    gradient = tape.gradient(losses["temperature"], parts.temperature.log.value)
    np.testing.assert_allclose(gradient, excess, rtol=1e-4)
    assert -2.0 < metrics["actor_entropy"] <= 2 * np.log(2)
    # Targets from the copies.
    soft = values_of(parts.target, tf.reshape(feat, [18, -1]), action).min(0).reshape(3, 6)
    soft = soft - 0.1 * log_prob
    going, targets = ~batch["is_first"].numpy()[:, 1:], np.zeros((3, 5))
    taken = batch["action"].numpy()[:, 1:]
    flat = tf.reshape(feat[:, :-1], [15, -1]), taken.reshape(15, 2)
    both = values_of(parts.critic, *flat).reshape(2, 3, 5)
    q = values_of(parts.target, *flat).min(0).reshape(3, 5)
    logs = [
        d.dist(tf.reshape(feat[:, :-1], [15, -1])).log_prob(taken.reshape(15, 2)).numpy()
        for d in (parts.actor, parts.replayed)
    ]
    ratio = np.minimum(1, np.exp(logs[0] - logs[1])).reshape(3, 5)
    reward, cont = batch["reward"].numpy(), batch["cont"].numpy()
    for b in range(3):
        for t in reversed(range(5)):
            carried = 0.0
            if t + 1 < 5 and going[b, t + 1]:
                carried = 0.95 * ratio[b, t + 1] * (targets[b, t + 1] - q[b, t + 1])
            bootstrap = 0.99 * cont[b, t + 1] * (soft[b, t + 1] + carried)
            targets[b, t] = reward[b, t + 1] + bootstrap
    errors = ((both - targets) ** 2).mean(0)[going]
    np.testing.assert_allclose(losses["critic"], 0.5 * errors.mean(), rtol=1e-4)
    np.testing.assert_allclose(
        losses["replayed"], -logs[1].reshape(3, 5)[going].mean(), rtol=1e-4
    )


def test_an_update_moves_every_part_and_the_targets_a_little(agent: Agent):
    before = {k: v.numpy().copy() for k, v in agent._variables().items()}
    metrics = agent.train_step(make_batch(), 0)
    assert all(np.isfinite(value) for value in metrics.values())
    after = {k: v.numpy() for k, v in agent._variables().items()}
    for part in ("model", "actor", "critic", "replayed", "temperature", "target"):
        own = [k for k in before if k.startswith(f"{part}/") and "/adam/" not in k]
        assert own and any((before[k] != after[k]).any() for k in own), part
    for key in before:
        if key.startswith("target/"):
            source = key.replace("target/target", "critic/critic")
            literal = before[key] + 0.02 * (after[source] - before[key])
            np.testing.assert_allclose(after[key], literal, atol=1e-7)


def test_the_model_learns_from_its_own_loss_alone(agent: Agent):
    """Features reach the behaviour's losses without gradient."""
    batch = {k: tf.constant(v) for k, v in make_batch().items()}
    with tf.GradientTape() as tape:
        noise = tf.zeros([3, 6, agent.world_model.noise_size])
        _, post, _ = agent.world_model.loss(batch, noise)
        (objective,) = agent._learner.objectives(post, batch, tf.constant(0), False)
        total = tf.add_n(list(objective()[0].values()))
    gradients = tape.gradient(total, agent.world_model.trainable_variables)
    assert all(gradient is None for gradient in gradients)


def test_it_acts_and_comes_back(agent: Agent, eagerly: None):
    other = make_agent(seed=1)
    other.load_arrays(agent.state_arrays())
    for key, value in agent.state_arrays().items():
        np.testing.assert_array_equal(value, other.state_arrays()[key])
    timesteps = {k: v[:, 0] for k, v in make_batch().items() if k != "action"}
    action, state = agent.policy(timesteps, None, "train")
    assert action.shape == (3, 2) and np.abs(action).max() <= 1
    agent.policy(timesteps, state, "eval")
    assert "model/joints" in agent.predict(make_batch(), 2)


def test_it_is_evaluated_at_its_mean_and_learns_from_samples(agent: Agent, eagerly: None):
    timesteps = {k: v[:, 0] for k, v in make_batch().items() if k != "action"}
    calm, state = agent.policy(timesteps, None, "eval")
    latent = {k: tf.constant(v) for k, v in state.items() if k != "action"}
    dist = agent.networks.actor.dist(agent.networks.model.rssm.feat(latent))
    np.testing.assert_allclose(calm, np.tanh(dist._mean), atol=1e-5)
    wild, _ = agent.policy(timesteps, None, "train")
    assert (np.abs(wild - calm) > 1e-3).all()


def test_one_hot_actions_are_refused():
    with pytest.raises(UserError, match="latent_sac takes continuous actions"):
        make_agent(ONEHOT)
