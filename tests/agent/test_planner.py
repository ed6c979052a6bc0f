"""The planner: known optima of quadratics, a literal NumPy version, values that are not finite.
"""

import numpy as np
import pytest
import tensorflow as tf
from small_agent import CONTINUOUS, ONEHOT, VECTORS, make_agent, make_timesteps

from dreamer.agent import policy as acting
from dreamer.agent.planner import plan
from dreamer.errors import UserError

SIZES = {"candidates": 300, "num_elites": 30, "iterations": 10}
SEED = tf.constant([3, 4])
N, H, A = 2, 4, 3


def quadratic(target: np.ndarray):
    """A judge whose best actions are `target` [N, H, A]."""

    def judge(actions: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        assert tuple(seed.shape) == (2,)
        return -tf.reduce_sum(tf.math.squared_difference(actions, target[:, None]), (-1, -2))

    return judge


def targets(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.9, 0.9, (N, H, A)).astype(np.float32)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_candidates_that_are_not_finite_are_ignored(bad: float):
    """Though half of all candidates, the best among them, are judged so."""

    def judge(actions: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        returns = quadratic(np.ones((N, H, A), np.float32))(actions, seed)
        return tf.where(actions[:, :, 0, 0] > 0.5, bad, returns)

    best = plan(judge, (N, H, A), SEED, discrete=False, **SIZES).numpy()
    assert np.isfinite(best).all()
    np.testing.assert_allclose(best[:, 0, 0], 0.5, atol=0.1)
    np.testing.assert_allclose(best.reshape(N, -1)[:, 1:], 1.0, atol=0.1)


@pytest.mark.parametrize("discrete", [False, True])
def test_where_no_candidate_counts_nothing_moves(discrete: bool):
    """And only there: the other row finds its optimum."""
    goal = np.eye(A, dtype=np.float32)[[[2, 0, 1, 2]] * N] if discrete else targets()

    def judge(actions: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        returns = quadratic(goal)(actions, seed)
        return tf.where(tf.constant([[True], [False]]), np.nan, returns)

    best = plan(judge, (N, H, A), SEED, discrete=discrete, **SIZES).numpy()
    if discrete:  # the first of equally probable ones
        np.testing.assert_array_equal(best[0], np.eye(A)[[0] * H])
    else:
        np.testing.assert_array_equal(best[0], np.zeros((H, A)))
    np.testing.assert_allclose(best[1], goal[1], atol=0.05)


def test_fewer_finite_candidates_than_survivors_count_alone():
    seen = []

    def judge(actions: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        seen.append(actions.numpy())
        index = tf.range(actions.shape[1])
        return tf.where(index < 7, tf.ones([N, 1]), np.nan)

    best = plan(judge, (N, H, A), SEED, discrete=False, candidates=50, num_elites=20, iterations=1)
    np.testing.assert_allclose(best, seen[0][:, :7].mean(1), rtol=1e-5, atol=1e-6)


def test_iterations_are_the_literal_ones():
    """Draws clipped around mean and std, which become those of the best, row by row."""
    seen: list[np.ndarray] = []

    def judge(actions: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        seen.append(actions.numpy())
        return quadratic(targets())(actions, seed)

    shape, sizes = (N, H, A), {"candidates": 40, "num_elites": 8, "iterations": 3}
    best = plan(judge, shape, SEED, discrete=False, **sizes).numpy()
    mean, std = np.zeros(shape), np.ones(shape)
    for i in range(3):
        folded = tf.random.experimental.stateless_fold_in(SEED, i)
        noise = tf.random.stateless_normal([N, 40, H, A], tf.random.split(folded, 2)[0]).numpy()
        for row in range(N):
            candidates = np.clip(mean[row] + std[row] * noise[row], -1.0, 1.0)
            np.testing.assert_allclose(seen[i][row], candidates, rtol=1e-4, atol=1e-5)
            returns = [-((c - targets()[row]) ** 2).sum() for c in candidates]
            elite = candidates[np.argsort(returns)[-8:]]
            mean[row], std[row] = elite.mean(0), elite.std(0)
    np.testing.assert_allclose(best, mean, rtol=1e-4, atol=1e-5)


def test_one_hot_draws_follow_the_frequencies_of_the_best():
    seen: list[np.ndarray] = []

    def judge(actions: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        seen.append(actions.numpy())
        return tf.cast(actions[:, :, 0, 0] + 0.5 * actions[:, :, 0, 1] > 0, tf.float32)

    plan(judge, (1, 1, 3), SEED, discrete=True, candidates=9000, num_elites=3000, iterations=2)
    np.testing.assert_allclose(seen[0].mean((0, 1, 2)), 1 / 3, atol=0.02)
    # Two of three actions were judged alike, the third worse: it is gone, ties are in order.
    np.testing.assert_allclose(seen[1].mean((0, 1, 2)), [0.5, 0.5, 0.0], atol=0.03)


def test_each_of_several_one_hot_vectors_is_planned():
    target = np.array([[[0, 1, 0, 0, 1], [1, 0, 0, 1, 0]]], np.float32)
    found = plan(quadratic(target), (1, 2, 5), SEED, discrete=True, parts=(2, 3), **SIZES)
    np.testing.assert_array_equal(found, target)


def planning_agent(act_space=CONTINUOUS, **overrides):
    small = {"planner__candidates": 6, "planner__num_elites": 2, "planner__iterations": 2}
    settings = {"behavior__policy": "planner", "planner__horizon": 3, **small, **overrides}
    return make_agent(VECTORS, act_space, **settings)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(
    ("returns", "discount"), [("reward", False), ("reward", True), ("lambda", False)]
)
def test_plans_are_judged_by_the_literal_returns(returns: str, discount: bool, monkeypatch):
    """Each candidate by itself, step by step, in NumPy but for the networks."""
    agent = planning_agent(planner__returns=returns, discount__enabled=discount)
    rssm, judged = agent.world_model.rssm, []

    def spy(judge, shape, seed, **settings):
        rng = np.random.default_rng(0)
        actions = rng.uniform(-1, 1, (shape[0], 4, *shape[1:])).astype(np.float32)
        judged.append((actions, judge(tf.constant(actions), SEED).numpy()))
        return tf.zeros(shape)

    monkeypatch.setattr(acting, "plan", spy)
    _, state = agent.policy(make_timesteps(count=2), None)
    ((actions, found),) = judged
    noise = tf.random.stateless_normal([3, 2 * 4, rssm.stoch_size], SEED)
    for row in range(2):
        for k in range(4):
            latent = {key: v[row : row + 1] for key, v in state.items() if key != "action"}
            rewards, values, factors = [], [], []
            for t in range(3):
                step_noise = noise[t, row * 4 + k][None]
                latent = rssm.imagine_step(latent, actions[row, k, t][None], step_noise)
                feat = rssm.feat(latent)
                rewards.append(float(agent.world_model.reward(feat)[0]))
                values.append(float(agent.value(feat)[0]) if agent.value else 0.0)
                head = agent.world_model.discount
                plain = 0.99 if returns == "lambda" else 1.0
                factors.append(float(head(feat)[0]) if head else plain)
            if returns == "reward":
                expected = rewards[0] + factors[0] * (rewards[1] + factors[1] * rewards[2])
            else:
                last = rewards[1] + factors[1] * values[2]
                expected = rewards[0] + factors[0] * (0.05 * values[1] + 0.95 * last)
            assert found[row, k] == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("act_space", [CONTINUOUS, ONEHOT])
def test_an_agent_that_plans_has_no_actor_and_takes_the_first_action(act_space, monkeypatch):
    agent = planning_agent(act_space)
    assert agent.actor is None and agent.value is None
    plans = []

    def spy(*args, **settings):
        plans.append(plan(*args, **settings))
        return plans[-1]

    monkeypatch.setattr(acting, "plan", spy)
    action, state = agent.policy(make_timesteps(), None, "eval")
    np.testing.assert_array_equal(action, plans[0][:, 0])
    np.testing.assert_array_equal(action, state["action"])
    names = {name.partition("/")[0] for name in agent.state_arrays()}
    assert names == {"model", "policy_calls"}


@pytest.mark.parametrize(("overrides", "expected"), [
    ({"planner__num_elites": 7}, "planner.num_elites is 7, but planner.candidates is 6"),
    ({"planner__returns": "lambda", "behavior__value": False}, "needs behavior.value"),
    ({"planner__returns": "lambda", "planner__horizon": 1}, "at least 2"),
    ({"disagreement__until": 10}, "needs behavior.policy actor"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_refused(overrides, expected):
    with pytest.raises(UserError, match=expected):
        planning_agent(**overrides)
