"""Imagination and its losses: against literal NumPy, by hand, or over all possible draws."""

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from small_agent import ONEHOT, VECTORS, make_agent

from dreamer.agent.behavior import Behavior, Imagination, imagine
from dreamer.nets.return_range import ReturnRange
from dreamer.ops.distributions import StraightThroughOneHot
from dreamer.ops.scalars import TwoHot, UnitNormal, make_bins
from dreamer.ops.shapes import over_leading

N, HORIZON, F = 5, 6, 4
GAMMA, LAMBDA = 0.9, 0.8
Head = Callable[[np.ndarray], np.ndarray]


def head(seed: int, squash: Callable = lambda x: x) -> Head:
    """A function of features [..., F] that NumPy and TensorFlow compute alike."""
    weights = np.random.default_rng(seed).normal(size=F).astype(np.float32)
    return lambda feat: squash(tf.linalg.matvec(feat, weights))


REWARD, VALUE, DISCOUNT = head(1), head(2), head(3, tf.sigmoid)


def losses_of(imagined: Imagination, reward, value, *others, **settings):
    """Losses of actor and value network (None without one), and metrics."""
    behavior = Behavior(**{"gamma": GAMMA, "lambda_": LAMBDA, **settings})
    if callable(value):
        function = value
        value = SimpleNamespace(predict=lambda x: UnitNormal(over_leading(function, x)))
    losses, metrics = behavior.losses(imagined, reward, value, *others)
    return losses["actor"], losses.get("value"), metrics


def trajectory(seed: int = 0) -> Imagination:
    rng = np.random.default_rng(seed)
    feat = tf.constant(rng.normal(size=(N, HORIZON, F)), tf.float32)
    action = tf.constant(rng.normal(size=(N, HORIZON, 2)), tf.float32)
    log_prob = tf.constant(rng.normal(size=(N, HORIZON)), tf.float32)
    start, entropy = (tf.constant(rng.normal(size=s), tf.float32) for s in ((N, F), (N, HORIZON)))
    return Imagination(start, feat, action, log_prob, entropy)


def literal_losses(feat: np.ndarray, discount: Head | None) -> tuple[float, float]:
    """Actor and value loss, row by row and state by state (equations 4 to 8)."""
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
    actor, value, metrics = losses_of(imagined, REWARD, VALUE, discount)
    expected = literal_losses(imagined.feat.numpy(), discount)
    np.testing.assert_allclose([actor, value], expected, rtol=1e-5)
    np.testing.assert_array_equal(metrics["actor_loss"], actor)
    np.testing.assert_array_equal(metrics["value_loss"], value)
    entropy = -imagined.log_prob.numpy().mean()
    np.testing.assert_allclose(metrics["actor_entropy"], entropy, rtol=1e-6)


@pytest.mark.parametrize("horizon", [1, HORIZON])
@pytest.mark.parametrize("gradient", ["dynamics", "score"])
@pytest.mark.parametrize("value", [None, VALUE])
def test_from_a_terminal_start_nothing_is_imagined(horizon, gradient, value: Head | None) -> None:
    """The second of five trajectories counts for nothing; where starts are judged, V_0 = r_0."""
    start, *later = trajectory()[:5]
    imagined = Imagination(start, *(x[:, :horizon] for x in later))

    def both(some: Imagination) -> np.ndarray:
        losses = losses_of(some, REWARD, value, DISCOUNT, gradient=gradient)
        return np.array([losses[0], losses[1] if value else 0.0])

    rows = [Imagination(*(x[i : i + 1] for x in imagined[:5])) for i in range(N)]
    expected = sum(both(row) for i, row in enumerate(rows) if i != 1)
    if value and (gradient == "score" or horizon == 1):
        reward = float(REWARD(imagined.start)[1])
        error = reward - float(VALUE(imagined.start)[1])
        chosen = error * float(imagined.log_prob[1, 0]) if gradient == "score" else reward
        loss = 0.5 * error**2 + 0.5 * math.log(2 * math.pi)
        expected = expected + np.array([-chosen, loss]) / horizon
    cont = tf.constant([1.0, 0.0, 1.0, 1.0, 1.0])
    found = both(imagined._replace(cont=cont))
    np.testing.assert_allclose(found, expected / N, rtol=1e-4)


def test_actor_gradient_is_that_of_weighted_returns_with_fixed_weights() -> None:
    """Through features, reward, value and pcont; the weights are constants."""
    imagined = trajectory()
    step = np.random.default_rng(9).normal(size=imagined.feat.shape).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(imagined.feat)
        actor, _, _ = losses_of(imagined, REWARD, VALUE, DISCOUNT)
    gradient = tape.gradient(actor, imagined.feat)
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
        _, value, _ = losses_of(imagined, REWARD, looked_up, DISCOUNT)
    gradient = tape.gradient(value, free).numpy()

    r, v, p = (np.float64(f(imagined.feat)) for f in (REWARD, VALUE, DISCOUNT))
    expected, following, weight = np.zeros((N, HORIZON)), v[:, -1], np.ones((N, HORIZON))
    for i in range(1, HORIZON):
        weight[:, i] = weight[:, i - 1] * p[:, i - 1]
    for i in reversed(range(HORIZON - 1)):
        following = r[:, i] + p[:, i] * ((1 - LAMBDA) * v[:, i + 1] + LAMBDA * following)
        expected[:, i] = weight[:, i] * (v[:, i] - following) / (N * (HORIZON - 1))
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


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


def trajectory_of(feat: np.ndarray, start: np.ndarray) -> Imagination:
    n, h, _ = feat.shape
    rest = [tf.random.stateless_normal(s, [n, h]) for s in ((n, h, 2), (n, h), (n, h))]
    return Imagination(tf.constant(start), tf.constant(feat), *rest)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


first, second, third = (
    lambda feat, i=i, squash=squash: squash(feat[..., i])
    for i, squash in enumerate((tf.identity, tf.identity, tf.sigmoid))
)


@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_without_a_value_network_the_actor_gets_the_literal_reward_sum(horizon: int):
    feat = numbers(4, horizon, 3)
    actor, value, metrics = losses_of(trajectory_of(feat, feat[:, 0]), first, None, third)
    assert value is None and "value_loss" not in metrics
    sums = []
    for row in np.float64(feat):
        pcont = 1 / (1 + np.exp(-row[:, 2]))
        sums.append(sum(math.prod(pcont[:i]) * row[i, 0] for i in range(horizon)))
    assert float(actor) == pytest.approx(-np.mean(sums), rel=1e-5)


def test_the_gradient_of_the_reward_sum_passes_through_the_expected_end():
    feat = tf.Variable(numbers(4, 5, 3))
    with tf.GradientTape() as tape:
        some = trajectory_of(numbers(4, 5, 3), numbers(4, 3))._replace(feat=feat)
        loss, _, _ = losses_of(some, first, None, third)
    slopes = tape.gradient(loss, feat).numpy()
    assert np.abs(slopes[:, :-1, 2]).min() > 0 and not slopes[:, -1, 2].any()


def test_at_a_horizon_of_one_the_start_is_the_state_that_learns():
    """V_0 = r_0 + pcont_0 v_1: the actor moves v_1 alone, and v_0 has a target."""
    feat, start = numbers(6, 1, 3), numbers(6, 3, seed=1)
    actor, value, _ = losses_of(trajectory_of(feat, start), first, second, third)
    pcont = 1 / (1 + np.exp(-np.float64(start[:, 2])))
    returns = start[:, 0] + pcont * feat[:, 0, 1]
    error = 0.5 * (returns - start[:, 1]) ** 2 + 0.5 * math.log(2 * math.pi)
    assert float(actor) == pytest.approx(-returns.mean(), rel=1e-5)
    assert float(value) == pytest.approx(error.mean(), rel=1e-5)


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
        """The probability of the path, differentiable by the logits."""
        chances = [tf.nn.softmax(self.logits[NODES.index(path[:i])])[a] for i, a in enumerate(path)]
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
        """The expected gradient of the score-function loss, over all possible draws."""
        tables = (self.reward, self.value, self.pcont)
        reward, value, pcont = (lambda f, x=x: tf.linalg.matvec(f, x) for x in tables)
        total = np.zeros(self.logits.shape)
        for path in PATHS:
            with tf.GradientTape() as tape:
                loss, _, _ = losses_of(
                    self.trajectory(path), reward, value if with_value else None, pcont,
                    lambda_=lambda_, gradient="score",
                )  # fmt: skip
            gradient = tf.convert_to_tensor(tape.gradient(loss, self.logits))
            total += float(self.probability(path)) * gradient.numpy()
        return total


@pytest.mark.parametrize(
    ("with_value", "lambda_", "exact_values"),
    [(True, 1.0, False), (True, 0.6, True), (True, 0.0, True), (False, LAMBDA, False)],
)
def test_the_scores_expectation_is_the_exact_gradient(with_value, lambda_, exact_values):
    tree = Tree()
    if exact_values:
        tree.evaluate()
    with tf.GradientTape() as tape:
        objective = tree.objective(with_value)
    exact = tf.convert_to_tensor(tape.gradient(objective, tree.logits)).numpy()
    found = tree.expected_gradient(with_value, lambda_)
    assert np.median(np.abs(exact[: len(NODES) - A**H])) > 1e-3
    np.testing.assert_allclose(found, -exact / H, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("gradient", ["dynamics", "score"])
@pytest.mark.parametrize("with_value", [False, True])
def test_entropy_counts_where_its_states_do(gradient: str, with_value: bool):
    feat, start = numbers(4, 5, 3), numbers(4, 3, seed=1)
    some = trajectory_of(feat, start)
    arguments = (some, first, second if with_value else None, third)
    without, with_bonus = (
        losses_of(*arguments, gradient=gradient, entropy=entropy)[0] for entropy in (0.0, 0.3)
    )
    bonus = float(without - with_bonus)
    whole = np.concatenate([start[:, None], feat], 1)
    if not (with_value and gradient == "score"):
        whole = feat
    pcont = 1 / (1 + np.exp(-np.float64(whole[..., 2])))
    entropy = some.entropy.numpy()  # at f_0..f_4
    states = {  # whose policies count, by index into `entropy`
        (True, "score"): range(5), (True, "dynamics"): range(1, 5),
        (False, "score"): range(5), (False, "dynamics"): range(5),
    }[with_value, gradient]  # fmt: skip
    total = sum((np.prod(pcont[:, :i], 1) * entropy[:, at]).sum() for i, at in enumerate(states))
    assert bonus == pytest.approx(0.3 * total / (4 * len(states)), rel=1e-3)


def test_the_weight_of_the_entropy_changes_with_the_updates():
    """Linearly: 0.3 + number / 4 (0.1 - 0.3), then 0.1."""
    some = trajectory_of(numbers(4, 5, 3), numbers(4, 3, seed=1))
    schedule = {"entropy": 0.3, "entropy_final": 0.1, "entropy_updates": 4}
    for number, weight in ((0, 0.3), (1, 0.25), (3, 0.15), (4, 0.1), (9, 0.1)):
        update = tf.constant(number)
        found = losses_of(some, first, second, third, None, None, None, update, **schedule)[0]
        expected = losses_of(some, first, second, third, entropy=weight)[0]
        assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_a_slow_copy_gives_the_values_in_returns():
    """The value that learns stays the network's own."""
    feat, start = numbers(4, 5, 3), numbers(4, 3, seed=1)
    actor, value, _ = losses_of(trajectory_of(feat, start), first, second, None, third)
    slow, values = 1 / (1 + np.exp(-np.float64(feat[..., 2]))), np.float64(feat[..., 1])
    returns = slow.copy()
    for i in reversed(range(4)):
        mixed = (1 - LAMBDA) * slow[:, i + 1] + LAMBDA * returns[:, i + 1]
        returns[:, i] = feat[:, i, 0] + GAMMA * mixed
    weight = GAMMA ** np.arange(4)
    squares = 0.5 * (returns - values)[:, :4] ** 2 + 0.5 * np.log(2 * np.pi)
    assert float(actor) == pytest.approx(-(weight * returns[:, :4]).mean(), rel=1e-5)
    assert float(value) == pytest.approx((weight * squares).mean(), rel=1e-5)


def test_a_slow_copy_pulls_the_value_network():
    feat, start = numbers(4, 5, 3), numbers(4, 3, seed=1)
    arguments = (trajectory_of(feat, start), first, second, None)
    actor, value, _ = losses_of(*arguments)
    pulled_actor, pulled_value, _ = losses_of(*arguments, third, slow_role="pull")
    assert float(pulled_actor) == float(actor)
    slow = 1 / (1 + np.exp(-np.float64(feat[:, :4, 2])))
    squares = 0.5 * (slow - feat[:, :4, 1]) ** 2 + 0.5 * np.log(2 * np.pi)
    expected = (GAMMA ** np.arange(4) * squares).mean()
    assert float(pulled_value - value) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gradient", ["dynamics", "score"])
def test_returns_are_divided_by_their_range(gradient: str):
    feat, start = 50 * numbers(4, 5, 3), numbers(4, 3, seed=1)
    arguments = (trajectory_of(feat, start), first, second, None)
    actor, value, _ = losses_of(*arguments, gradient=gradient)
    bonus = losses_of(*arguments, gradient=gradient, entropy=0.1)[0] - actor
    returns = ReturnRange()
    returns.build()
    divided, same, metrics = losses_of(*arguments, None, returns, gradient=gradient, entropy=0.1)
    scale = float(metrics["return_scale"])
    assert scale > 10
    assert float(divided) == pytest.approx(float(actor) / scale + float(bonus), rel=1e-3)
    assert float(same) == float(value)


class LinearWorld:
    """Dynamics, and a policy that is the same everywhere: all that follows an action is linear."""

    def __init__(self) -> None:
        self.logits = tf.Variable(numbers(1, A))
        self._state, self._action = numbers(3, 3), numbers(A, 3, seed=1)

    def feat(self, state):
        return state["stoch"]

    def imagine_step(self, state, action, noise):
        return {"stoch": state["stoch"] @ self._state + action @ self._action}

    def __call__(self, feat):
        return tf.repeat(self.logits, feat.shape[0], 0)

    def policy(self, outputs):
        return StraightThroughOneHot(outputs)


def test_straight_through_is_exact_where_what_follows_is_linear():
    """The same gradient from every draw, that of the mean over all action sequences."""
    world, start = LinearWorld(), {"stoch": tf.constant(numbers(1, 3))}

    def loss_and_action(noise):
        imagined = imagine(world, world, start, tf.zeros([H, 1, 1]), noise)
        return losses_of(imagined, first, second, None)[0], imagined.action

    draws: dict[tuple[int, ...], tuple[float, np.ndarray]] = {}
    for path in PATHS:  # by noise that leaves no other choice
        noise = 8 * np.eye(A, dtype=np.float32)[list(path)] - 4
        with tf.GradientTape() as tape:
            loss, action = loss_and_action(tf.constant(noise[:, None]))
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


def test_a_two_hot_value_network_learns_by_cross_entropy():
    """The actor's loss takes its mean; the value loss its logits, towards the same returns."""
    bins, weights = make_bins(7), np.random.default_rng(5).normal(size=(F, 7)).astype(np.float32)
    value = SimpleNamespace(predict=lambda x: TwoHot(tf.einsum("...f,fk->...k", x, weights), bins))
    imagined = trajectory()
    actor, loss, metrics = losses_of(imagined, REWARD, value, DISCOUNT)
    dist = value.predict(imagined.feat)
    expected_actor, _, _ = losses_of(imagined, REWARD, lambda x: value.predict(x).mean, DISCOUNT)
    assert float(actor) == pytest.approx(float(expected_actor), rel=1e-5)
    r, v, p = (np.float64(x) for x in (REWARD(imagined.feat), dist.mean, DISCOUNT(imagined.feat)))
    returns, weight, total = v[:, -1], np.ones((N, HORIZON)), 0.0
    for i in range(1, HORIZON):
        weight[:, i] = weight[:, i - 1] * p[:, i - 1]
    for i in reversed(range(HORIZON - 1)):
        returns = r[:, i] + p[:, i] * ((1 - LAMBDA) * v[:, i + 1] + LAMBDA * returns)
        log_prob = TwoHot(dist.logits[:, i], bins).log_prob(tf.constant(returns, tf.float32))
        total -= (weight[:, i] * log_prob.numpy()).sum()
    assert float(loss) == pytest.approx(total / (N * (HORIZON - 1)), rel=1e-4)
    assert float(metrics["imagined_value"]) == pytest.approx(v.mean(), rel=1e-4)
