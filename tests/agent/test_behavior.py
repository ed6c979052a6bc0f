"""Imagination and its losses against a literal NumPy version, with the networks as callables."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from small_agent import ONEHOT, VECTORS, make_agent

from dreamer.agent.behavior import Imagination, imagine
from dreamer.agent.learner import behavior_losses

N, HORIZON, F = 5, 6, 4
GAMMA, LAMBDA = 0.9, 0.8
Head = Callable[[np.ndarray], np.ndarray]


def head(seed: int, squash: Callable = lambda x: x) -> Head:
    """A function of features [..., F] that NumPy and TensorFlow compute alike."""
    weights = np.random.default_rng(seed).normal(size=F).astype(np.float32)
    return lambda feat: squash(tf.linalg.matvec(feat, weights))


REWARD, VALUE, DISCOUNT = head(1), head(2), head(3, tf.sigmoid)


def trajectory(seed: int = 0) -> Imagination:
    rng = np.random.default_rng(seed)
    feat = tf.constant(rng.normal(size=(N, HORIZON, F)), tf.float32)
    action = tf.constant(rng.normal(size=(N, HORIZON, 2)), tf.float32)
    log_prob = tf.constant(rng.normal(size=(N, HORIZON)), tf.float32)
    start, entropy = (tf.constant(rng.normal(size=s), tf.float32) for s in ((N, F), (N, HORIZON)))
    return Imagination(start, feat, action, log_prob, entropy)


def literal_losses(feat: np.ndarray, discount: Head | None) -> tuple[float, float]:
    """Row by row, state by state, as DESIGN writes it."""
    actor, value = [], []
    for row in feat:
        r, v = np.float64(REWARD(row)), np.float64(VALUE(row))
        pcont = np.float64(discount(row)) if discount else np.full(HORIZON, GAMMA)
        returns = {HORIZON - 1: v[-1]}  # V_H = v_H
        for i in reversed(range(HORIZON - 1)):
            mixed = (1 - LAMBDA) * v[i + 1] + LAMBDA * returns[i + 1]
            returns[i] = r[i] + pcont[i] * mixed
        for i in range(HORIZON - 1):
            weight = math.prod(pcont[:i])
            log_prob = -0.5 * (returns[i] - v[i]) ** 2 - 0.5 * math.log(2 * math.pi)
            actor.append(weight * returns[i])
            value.append(weight * log_prob)
    return -float(np.mean(actor)), -float(np.mean(value))


@pytest.mark.parametrize("discount", [None, DISCOUNT])
def test_losses_are_the_literal_ones(discount: Head | None) -> None:
    imagined = trajectory()
    losses = behavior_losses(imagined, REWARD, VALUE, discount, gamma=GAMMA, lambda_=LAMBDA)
    actor, value = literal_losses(imagined.feat.numpy(), discount)
    np.testing.assert_allclose(losses.actor, actor, rtol=1e-5)
    np.testing.assert_allclose(losses.value, value, rtol=1e-5)
    np.testing.assert_array_equal(losses.metrics["actor_loss"], losses.actor)
    np.testing.assert_array_equal(losses.metrics["value_loss"], losses.value)
    entropy = -imagined.log_prob.numpy().mean()
    np.testing.assert_allclose(losses.metrics["actor_entropy"], entropy, rtol=1e-6)


def test_the_heads_mean_is_the_whole_factor() -> None:
    """It has learnt gamma * cont: a head that says gamma gives what no head gives, any gamma."""
    imagined = trajectory()

    def says_gamma(feat):
        return tf.fill(tf.shape(feat)[:-1], GAMMA)

    some = behavior_losses(imagined, REWARD, VALUE, None, gamma=GAMMA, lambda_=LAMBDA)
    same = behavior_losses(imagined, REWARD, VALUE, says_gamma, gamma=0.123, lambda_=LAMBDA)
    np.testing.assert_allclose(some.actor, same.actor, rtol=1e-6)
    np.testing.assert_allclose(some.value, same.value, rtol=1e-6)


def test_after_an_expected_end_nothing_counts() -> None:
    """Where the head says 0, later rewards and values reach neither loss."""
    imagined = trajectory()

    def ends_at_third(feat):
        factor = tf.constant([0.9, 0.9, 0.0, 0.9, 0.9, 0.9])
        return tf.reshape(tf.tile(factor, [N]), tf.shape(feat)[:-1])

    later = np.zeros((N, HORIZON, F), np.float32)
    later[:, 3:] = 5.0
    moved = imagined._replace(feat=imagined.feat + later)
    arguments = {"gamma": GAMMA, "lambda_": LAMBDA}
    some = behavior_losses(imagined, REWARD, VALUE, ends_at_third, **arguments)
    same = behavior_losses(moved, REWARD, VALUE, ends_at_third, **arguments)
    np.testing.assert_allclose(some.actor, same.actor, rtol=1e-6)
    np.testing.assert_allclose(some.value, same.value, rtol=1e-6)


@pytest.mark.parametrize("horizon", [1, HORIZON])
@pytest.mark.parametrize("gradient", ["dynamics", "score"])
@pytest.mark.parametrize("value", [None, VALUE])
def test_from_a_terminal_start_nothing_is_imagined(
    horizon: int, gradient: str, value: Head | None
) -> None:
    """The second of five trajectories counts for nothing; where starts are judged, V_0 = r_0."""
    start, *later = trajectory()[:5]
    imagined = Imagination(start, *(x[:, :horizon] for x in later))
    settings = {"gamma": GAMMA, "lambda_": LAMBDA, "gradient": gradient}

    def losses_of(some: Imagination) -> np.ndarray:
        losses = behavior_losses(some, REWARD, value, DISCOUNT, **settings)
        return np.array([losses.actor, losses.value if value else 0.0])

    rows = [Imagination(*(x[i : i + 1] for x in imagined[:5])) for i in range(N)]
    expected = sum(losses_of(row) for i, row in enumerate(rows) if i != 1)
    if value and (gradient == "score" or horizon == 1):
        reward = float(REWARD(imagined.start)[1])
        error = reward - float(VALUE(imagined.start)[1])
        chosen = error * float(imagined.log_prob[1, 0]) if gradient == "score" else reward
        loss = 0.5 * error**2 + 0.5 * math.log(2 * math.pi)
        expected = expected + np.array([-chosen, loss]) / horizon
    cont = tf.constant([1.0, 0.0, 1.0, 1.0, 1.0])
    found = losses_of(imagined._replace(cont=cont))
    np.testing.assert_allclose(found, expected / N, rtol=1e-4)


# ------------------------------------------------------------------ gradients


def test_actor_gradient_is_that_of_weighted_returns_with_fixed_weights() -> None:
    """Through features, reward, value and pcont; the weights are constants."""
    imagined = trajectory()
    step = np.random.default_rng(9).normal(size=imagined.feat.shape).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(imagined.feat)
        losses = behavior_losses(imagined, REWARD, VALUE, DISCOUNT, gamma=GAMMA, lambda_=LAMBDA)
    gradient = tape.gradient(losses.actor, imagined.feat)
    slope = float(np.sum(np.float64(gradient) * step))

    base = imagined.feat.numpy()
    pcont = np.float64(DISCOUNT(base))
    weight = np.cumprod(np.concatenate([np.ones((N, 1)), pcont[:, :-1]], 1), 1)[:, :-1]

    def fixed_weight_loss(feat) -> float:
        r, v, p = (np.float64(f(feat.astype(np.float32))) for f in (REWARD, VALUE, DISCOUNT))
        returns, following = [], v[:, -1]
        for i in reversed(range(HORIZON - 1)):
            following = r[:, i] + p[:, i] * ((1 - LAMBDA) * v[:, i + 1] + LAMBDA * following)
            returns.append(following)
        return -float((weight * np.stack(returns[::-1], 1)).mean())

    h = 1e-2
    numeric = (fixed_weight_loss(base + h * step) - fixed_weight_loss(base - h * step)) / (2 * h)
    assert slope == pytest.approx(numeric, rel=1e-2)


def test_value_targets_carry_no_gradient() -> None:
    """d value loss / d v_i = weight_i (v_i - V_i) / count, as if V were data."""
    imagined = trajectory()
    free = tf.Variable(VALUE(imagined.feat))  # a value "network" with a weight for each state

    def looked_up(feat):
        return tf.reshape(free, tf.shape(feat)[:-1])

    with tf.GradientTape() as tape:
        losses = behavior_losses(imagined, REWARD, looked_up, DISCOUNT, gamma=GAMMA, lambda_=LAMBDA)
    gradient = tape.gradient(losses.value, free).numpy()

    r, v, p = (np.float64(f(imagined.feat)) for f in (REWARD, VALUE, DISCOUNT))
    expected, following, weight = np.zeros((N, HORIZON)), v[:, -1], np.ones((N, HORIZON))
    for i in range(1, HORIZON):
        weight[:, i] = weight[:, i - 1] * p[:, i - 1]
    for i in reversed(range(HORIZON - 1)):
        following = r[:, i] + p[:, i] * ((1 - LAMBDA) * v[:, i + 1] + LAMBDA * following)
        expected[:, i] = weight[:, i] * (v[:, i] - following) / (N * (HORIZON - 1))
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------- imagination


def imagination_inputs(agent, actions: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    rssm = agent.world_model.rssm
    sizes = {"mean": 4, "std": 4, "stoch": 4, "deter": 16}  # the debug preset's
    start = {k: tf.constant(rng.normal(size=(N, s)), tf.float32) for k, s in sizes.items()}
    latent = tf.constant(rng.normal(size=(HORIZON, N, rssm.stoch_size)), tf.float32)
    return start, latent, tf.constant(rng.normal(size=(HORIZON, N, actions)), tf.float32)


def test_imagination_is_the_loop_it_says() -> None:
    """Action i is the policy's at feature i and leads to feature i + 1; the start is left out."""
    agent = make_agent()
    rssm = agent.world_model.rssm
    start, latent, action_noise = imagination_inputs(agent, 2)
    imagined = imagine(rssm, agent.actor, start, latent, action_noise)
    assert imagined.feat.shape == (N, HORIZON, rssm.feat_size)
    assert imagined.action.shape == (N, HORIZON, 2) and imagined.log_prob.shape == (N, HORIZON)
    state = start
    for i in range(HORIZON):
        dist = agent.actor.dist(rssm.feat(state))
        action, log_prob = dist.from_noise(action_noise[i])
        np.testing.assert_allclose(imagined.action[:, i], action, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(imagined.log_prob[:, i], log_prob, rtol=1e-4, atol=1e-5)
        state = rssm.imagine_step(state, action, latent[i])
        np.testing.assert_allclose(imagined.feat[:, i], rssm.feat(state), rtol=1e-5, atol=1e-6)


def test_actors_input_stops_the_gradient_and_actions_carry_it() -> None:
    """Changing the start moves later features through the dynamics alone, as with fixed actions."""
    agent = make_agent()
    rssm = agent.world_model.rssm
    start, latent, action_noise = imagination_inputs(agent, 2)

    def gradient_by_start(features: Callable) -> list[np.ndarray]:
        sources = [start["stoch"], start["deter"]]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            total = tf.reduce_sum(features())
        return [g.numpy() for g in tape.gradient(total, sources)]

    taken = imagine(rssm, agent.actor, start, latent, action_noise).action

    def with_fixed_actions():
        state, feats = start, []
        for i in range(HORIZON):
            state = rssm.imagine_step(state, taken[:, i], latent[i])
            feats.append(rssm.feat(state))
        return tf.stack(feats, 1)

    some = gradient_by_start(
        lambda: imagine(rssm, agent.actor, start, latent, action_noise).feat
    )  # fmt: skip
    for mine, expected in zip(some, gradient_by_start(with_fixed_actions), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("discrete", [False, True])
def test_later_features_teach_earlier_actions(discrete: bool) -> None:
    agent = make_agent(VECTORS, ONEHOT) if discrete else make_agent()
    start, latent, action_noise = imagination_inputs(agent, 3 if discrete else 2)
    with tf.GradientTape() as tape:
        imagined = imagine(agent.world_model.rssm, agent.actor, start, latent, action_noise)
        last = tf.reduce_sum(imagined.feat[:, -1])
    gradients = tape.gradient(last, agent.actor.trainable_variables)
    assert all(g is not None and np.any(g) for g in gradients)
    if discrete:
        action = imagined.action.numpy()
        np.testing.assert_allclose(action.sum(-1), 1.0, rtol=1e-5)
        np.testing.assert_allclose(action.max(-1), 1.0, rtol=1e-5)
