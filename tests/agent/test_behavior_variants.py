"""Behaviour without a value network, at one step, and by the score function: exact or by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from small_agent import CONTINUOUS, ONEHOT, VECTORS, make_agent

from dreamer.agent.behavior import Imagination, imagine
from dreamer.agent.learner import behavior_losses
from dreamer.errors import UserError
from dreamer.ops.distributions import StraightThroughOneHot

GAMMA, LAMBDA = 0.9, 0.8


def imagined(feat: np.ndarray, start: np.ndarray) -> Imagination:
    n, h, _ = feat.shape
    rest = [tf.random.stateless_normal(s, [n, h]) for s in ((n, h, 2), (n, h), (n, h))]
    return Imagination(tf.constant(start), tf.constant(feat), *rest)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def first(feat):
    return feat[..., 0]


def second(feat):
    return feat[..., 1]


def third(feat):
    return tf.sigmoid(feat[..., 2])


# ------------------------------------------------------------ no value network


def test_reward_sums_by_hand():
    """r = 1, 2, 4 and a factor of 1/2: 1 + (2 + 4/2)/2 = 3."""
    feat = np.float32([[[1], [2], [4]]])
    losses = behavior_losses(
        imagined(feat, feat[:, 0]), first, None, None, gamma=0.5, lambda_=LAMBDA
    )
    assert float(losses.actor) == -3.0
    assert losses.value is None and "value_loss" not in losses.metrics


@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_without_a_value_network_the_actor_gets_the_literal_reward_sum(horizon: int):
    feat = numbers(4, horizon, 3)
    losses = behavior_losses(
        imagined(feat, feat[:, 0]), first, None, third, gamma=GAMMA, lambda_=LAMBDA
    )
    sums = []
    for row in np.float64(feat):
        pcont = 1 / (1 + np.exp(-row[:, 2]))
        sums.append(sum(math.prod(pcont[:i]) * row[i, 0] for i in range(horizon)))
    assert float(losses.actor) == pytest.approx(-np.mean(sums), rel=1e-5)


def test_the_gradient_of_the_reward_sum_passes_through_the_expected_end():
    feat = tf.Variable(numbers(4, 5, 3))
    with tf.GradientTape() as tape:
        trajectory = imagined(numbers(4, 5, 3), numbers(4, 3))._replace(feat=feat)
        loss = behavior_losses(trajectory, first, None, third, gamma=GAMMA, lambda_=LAMBDA).actor
    slopes = tape.gradient(loss, feat).numpy()
    assert np.abs(slopes[:, :-1, 2]).min() > 0 and not slopes[:, -1, 2].any()


# -------------------------------------------------------------------- one step


def test_at_a_horizon_of_one_the_start_is_the_state_that_learns():
    """V_0 = r_0 + pcont_0 v_1: the actor moves v_1 alone, and v_0 has a target."""
    feat, start = numbers(6, 1, 3), numbers(6, 3, seed=1)
    losses = behavior_losses(
        imagined(feat, start), first, second, third, gamma=GAMMA, lambda_=LAMBDA
    )
    pcont = 1 / (1 + np.exp(-np.float64(start[:, 2])))
    returns = start[:, 0] + pcont * feat[:, 0, 1]
    error = 0.5 * (returns - start[:, 1]) ** 2 + 0.5 * math.log(2 * math.pi)
    assert float(losses.actor) == pytest.approx(-returns.mean(), rel=1e-5)
    assert float(losses.value) == pytest.approx(error.mean(), rel=1e-5)


# -------------------------------- the score function, against all there can be

H, A = 3, 2
PATHS = list(itertools.product(range(A), repeat=H))
NODES = [path[:i] for i in range(H + 1) for path in itertools.product(range(A), repeat=i)]
NODES = list(dict.fromkeys(NODES))  # every history of actions, the empty one first


class Tree:
    """A world whose states are the actions so far, with a table for each head and the policy."""

    def __init__(self) -> None:
        count = len(NODES)
        self.logits = tf.Variable(numbers(count, A))
        self.reward, self.value = numbers(2, count, seed=1)
        self.pcont = np.random.default_rng(2).uniform(0.5, 1.0, count).astype(np.float32)

    def trajectory(self, path: tuple[int, ...]) -> Imagination:
        """What `imagine` would return, had it drawn these actions."""
        nodes = [NODES.index(path[:i]) for i in range(H + 1)]
        feat = np.eye(len(NODES), dtype=np.float32)[nodes]
        action = np.eye(A, dtype=np.float32)[list(path)]
        policy = StraightThroughOneHot(tf.gather(self.logits, nodes[:-1]))
        rows = (feat[1:], action, policy.log_prob(action), policy.entropy(policy.log_prob(action)))
        return Imagination(tf.constant(feat[:1]), *(tf.convert_to_tensor(x)[None] for x in rows))

    def probability(self, path: tuple[int, ...]) -> tf.Tensor:
        """Of that path, differentiable by the logits."""
        chances = [
            tf.nn.softmax(self.logits[NODES.index(path[:i])])[a] for i, a in enumerate(path)
        ]
        return tf.reduce_prod(tf.stack(chances))

    def evaluate(self) -> None:
        """Makes `value` the policy's own: v = r + pcont E v', given those of the last states."""
        chances = tf.nn.softmax(self.logits).numpy()
        for node in reversed([node for node in NODES if len(node) < H]):
            i = NODES.index(node)
            following = [self.value[NODES.index((*node, a))] for a in range(A)]
            self.value[i] = self.reward[i] + self.pcont[i] * (chances[i] @ following)

    def objective(self, with_value: bool) -> tf.Tensor:
        """E[V_0], lambda being 1, or E[R_1]; by enumeration."""
        total = tf.zeros([])
        for path in PATHS:
            nodes = [NODES.index(path[:i]) for i in range(H + 1)]
            ahead, factor = 0.0, 1.0
            for i in nodes[:-1] if with_value else nodes[1:]:
                ahead, factor = ahead + factor * self.reward[i], factor * self.pcont[i]
            if with_value:
                ahead += factor * self.value[nodes[-1]]
            total += self.probability(path) * ahead
        return total

    def expected_gradient(self, with_value: bool, lambda_: float) -> np.ndarray:
        """Of the score's loss, over everything that could be drawn."""
        tables = (self.reward, self.value, self.pcont)
        reward, value, pcont = (lambda f, x=x: tf.linalg.matvec(f, x) for x in tables)
        total = np.zeros(self.logits.shape)
        for path in PATHS:
            with tf.GradientTape() as tape:
                losses = behavior_losses(
                    self.trajectory(path), reward, value if with_value else None, pcont,
                    gamma=GAMMA, lambda_=lambda_, gradient="score",
                )  # fmt: skip
            gradient = tf.convert_to_tensor(tape.gradient(losses.actor, self.logits))
            total += float(self.probability(path)) * gradient.numpy()
        return total


@pytest.mark.parametrize(
    ("with_value", "lambda_", "exact_values"),
    [(True, 1.0, False), (True, 0.6, True), (True, 0.0, True), (False, LAMBDA, False)],
)
def test_the_scores_expectation_is_the_exact_gradient(
    with_value: bool, lambda_: float, exact_values: bool
):
    tree = Tree()
    if exact_values:
        tree.evaluate()
    with tf.GradientTape() as tape:
        objective = tree.objective(with_value)
    exact = tf.convert_to_tensor(tape.gradient(objective, tree.logits)).numpy()
    found = tree.expected_gradient(with_value, lambda_)
    assert np.median(np.abs(exact[: len(NODES) - A**H])) > 1e-3
    np.testing.assert_allclose(found, -exact / H, rtol=1e-3, atol=1e-6)


def test_the_value_is_a_baseline_that_lowers_the_scores_variance():
    tree = Tree()
    tree.reward += 5.0
    tree.value += 5.0
    tree.evaluate()
    tables = (tree.reward, tree.value, tree.pcont)
    reward, value, pcont = (lambda f, x=x: tf.linalg.matvec(f, x) for x in tables)

    def spread(baseline) -> float:
        second_moment = 0.0
        for path in PATHS:
            with tf.GradientTape() as tape:
                loss = behavior_losses(
                    tree.trajectory(path), reward, baseline, pcont,
                    gamma=GAMMA, lambda_=1.0, gradient="score",
                ).actor  # fmt: skip
            gradient = tf.convert_to_tensor(tape.gradient(loss, tree.logits))
            second_moment += float(tree.probability(path)) * float(tf.reduce_sum(gradient**2))
        return second_moment

    assert spread(value) < 0.2 * spread(None)


def test_the_score_reaches_the_actor_by_its_probabilities_alone():
    agent = make_agent(VECTORS, ONEHOT)
    rssm = agent.world_model.rssm
    start = {k: tf.constant(numbers(5, s)) for k, s in rssm_sizes(agent).items()}
    noise = tf.constant(numbers(4, 5, rssm.stoch_size)), tf.constant(numbers(4, 5, 3))
    with tf.GradientTape(persistent=True) as tape:
        trajectory = imagine(rssm, agent.actor, start, *noise)
        heads = (agent.world_model.reward, agent.value, None)
        loss = behavior_losses(
            trajectory, *heads, gamma=GAMMA, lambda_=LAMBDA, gradient="score"
        ).actor
    for part in (rssm, agent.world_model.reward, agent.value):
        assert all(g is None for g in tape.gradient(loss, part.trainable_variables))
    gradients = tape.gradient(loss, agent.actor.trainable_variables)
    assert all(np.any(g) for g in gradients)


def rssm_sizes(agent) -> dict[str, int]:
    return {k: v.shape[-1] for k, v in agent.world_model.rssm.initial(1).items()}


def test_the_score_is_for_one_hot_actions():
    with pytest.raises(UserError, match="actor.gradient is score, which is for one-hot"):
        make_agent(VECTORS, CONTINUOUS, actor__gradient="score")


# ------------------------------------------------------------------ the entropy


@pytest.mark.parametrize("gradient", ["dynamics", "score"])
@pytest.mark.parametrize("with_value", [False, True])
def test_entropy_counts_where_its_states_do(gradient: str, with_value: bool):
    feat, start = numbers(4, 5, 3), numbers(4, 3, seed=1)
    trajectory = imagined(feat, start)
    arguments = (trajectory, first, second if with_value else None, third)
    settings = {"gamma": GAMMA, "lambda_": LAMBDA, "gradient": gradient}
    without = behavior_losses(*arguments, **settings).actor
    bonus = float(without - behavior_losses(*arguments, **settings, entropy=0.3).actor)
    whole = np.concatenate([start[:, None], feat], 1)
    if not (with_value and gradient == "score"):
        whole = feat
    pcont = 1 / (1 + np.exp(-np.float64(whole[..., 2])))
    entropy = trajectory.entropy.numpy()  # at f_0..f_4
    states = {  # whose policies count, by index into `entropy`
        (True, "score"): range(5), (True, "dynamics"): range(1, 5),
        (False, "score"): range(5), (False, "dynamics"): range(5),
    }[with_value, gradient]  # fmt: skip
    total = sum(
        (np.prod(pcont[:, :i], 1) * entropy[:, at]).sum() for i, at in enumerate(states)
    )
    assert bonus == pytest.approx(0.3 * total / (4 * len(states)), rel=1e-3)


# ------------------------------------------------------------- straight-through


class LinearWorld:
    """Dynamics, and a policy that is the same everywhere: all that follows an action is linear."""

    def __init__(self) -> None:
        self.logits = tf.Variable(numbers(1, A))
        self._state, self._action = numbers(3, 3), numbers(A, 3, seed=1)

    def feat(self, state):
        return state["stoch"]

    def imagine_step(self, state, action, noise):
        return {"stoch": state["stoch"] @ self._state + action @ self._action}

    def dist(self, feat):
        return StraightThroughOneHot(tf.repeat(self.logits, feat.shape[0], 0))


def test_straight_through_is_exact_where_what_follows_is_linear():
    """The same gradient from every draw, that of the mean over all action sequences."""
    world, start = LinearWorld(), {"stoch": tf.constant(numbers(1, 3))}

    def losses_of(noise):
        trajectory = imagine(world, world, start, tf.zeros([H, 1, 1]), noise)
        loss = behavior_losses(trajectory, first, second, None, gamma=GAMMA, lambda_=LAMBDA).actor
        return loss, trajectory.action

    draws: dict[tuple[int, ...], tuple[float, np.ndarray]] = {}
    for path in PATHS:  # by noise that leaves no other choice
        noise = 8 * np.eye(A, dtype=np.float32)[list(path)] - 4
        with tf.GradientTape() as tape:
            loss, action = losses_of(tf.constant(noise[:, None]))
        assert tuple(action.numpy()[0].argmax(-1)) == path
        draws[path] = float(loss), tape.gradient(loss, world.logits).numpy()
    with tf.GradientTape() as tape:
        chances = tf.nn.softmax(world.logits)[0]
        exact = tf.add_n(
            [tf.reduce_prod(tf.gather(chances, path)) * draws[path][0] for path in PATHS]
        )
    expected = tape.gradient(exact, world.logits).numpy()
    assert np.abs(expected).min() > 1e-3
    for _, gradient in draws.values():
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-5)
