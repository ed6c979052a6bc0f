"""Densities against NumPy's change of variables and integration; modes; straight-through."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from dreamer.ops.distributions import (
    ClippedNormal,
    ProductOfOneHots,
    StraightThroughOneHot,
    TanhNormal,
    diagonal_normal,
    inverse_softplus,
    mix_uniform,
    unit_normal_log_prob,
)

tfd = tfp.distributions
SEED = tf.constant([3, 4])


def normal_log_prob(x, mean, std):
    return -0.5 * ((x - mean) / std) ** 2 - np.log(std) - 0.5 * math.log(2 * math.pi)


def tanh_normal_log_prob(action, mean, std):
    """log N(atanh a) - sum log da/du, in float64, with da/du = 1 - a^2."""
    action = np.asarray(action, np.float64)
    density = normal_log_prob(np.arctanh(action), mean, std) - np.log(1 - action**2)
    return density.sum(-1)


@pytest.mark.parametrize(("shape", "event_ndims"), [((5,), 0), ((5, 3), 1), ((2, 4, 4, 3), 3)])
def test_unit_normal_is_tfps(shape: tuple[int, ...], event_ndims: int) -> None:
    target, mean = tf.random.stateless_normal([2, *shape], SEED)
    expected = tfd.Independent(tfd.Normal(mean, 1.0), event_ndims).log_prob(target)
    actual = unit_normal_log_prob(target, mean, event_ndims)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_diagonal_normal_sums_over_the_last_axis() -> None:
    x, mean = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    std = np.float32([0.1, 1.0, 7.0])
    actual = diagonal_normal(tf.constant(mean), tf.constant(std)).log_prob(x)
    np.testing.assert_allclose(actual, normal_log_prob(x, mean, std).sum(-1), rtol=1e-4)


@pytest.mark.parametrize("x", [1e-3, 1.0, 5.0])
def test_inverse_softplus(x: float) -> None:
    assert math.log1p(math.exp(inverse_softplus(x))) == pytest.approx(x)


def test_tanh_normal_samples_come_with_their_density() -> None:
    rng = np.random.default_rng(1)
    mean, std = rng.normal(size=(6, 3)), rng.uniform(0.2, 1.0, (6, 3))
    noise = rng.normal(size=(6, 3))
    dist = TanhNormal(tf.constant(mean, tf.float32), tf.constant(std, tf.float32))
    action, log_prob = dist.from_noise(tf.constant(noise, tf.float32))
    np.testing.assert_allclose(action, np.tanh(mean + std * noise), rtol=1e-4, atol=1e-6)
    expected = tanh_normal_log_prob(np.tanh(mean + std * noise), mean, std)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(log_prob, dist.log_prob(action), rtol=1e-3, atol=1e-3)


def test_tanh_normal_density_stays_finite_at_the_border() -> None:
    """The start's std of 5 puts most samples where tanh rounds to one."""
    dist = TanhNormal(tf.zeros([2, 1]), tf.fill([2, 1], 5.0))
    action, log_prob = dist.from_noise(tf.constant([[4.0], [-6.0]]))
    np.testing.assert_array_equal(action, [[1.0], [-1.0]])
    # log(1 - tanh(u)^2) = 2 (log 2 - |u|) for large u
    u = np.array([20.0, -30.0])
    expected = normal_log_prob(u, 0.0, 5.0) - 2 * (math.log(2) - np.abs(u))
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5)
    assert np.isfinite(dist.log_prob(action)).all()


def test_tanh_normal_is_reparameterised() -> None:
    mean, std = tf.constant([[0.3, -0.2]]), tf.constant([[0.5, 0.4]])
    noise = tf.constant([[1.0, -0.5]])
    with tf.GradientTape() as tape:
        tape.watch([mean, std])
        action, _ = TanhNormal(mean, std).from_noise(noise)
    of_mean, of_std = tape.gradient(action, [mean, std])
    slope = 1.0 - action.numpy() ** 2
    np.testing.assert_allclose(of_mean, slope, rtol=1e-5)
    np.testing.assert_allclose(of_std, slope * noise.numpy(), rtol=1e-5)


def test_mode_is_the_densest_draw_of_each_row() -> None:
    """For a batch of more than one: the TF2 release takes row 0's choice for all."""
    samples, rng = 50, np.random.default_rng(2)
    mean, std = rng.normal(size=(6, 2)), rng.uniform(0.3, 1.5, (6, 2))
    dist = TanhNormal(tf.constant(mean, tf.float32), tf.constant(std, tf.float32))
    noise = tf.random.stateless_normal([samples, 6, 2], SEED).numpy()
    expected, choices = [], []
    for row in range(6):
        draws = np.tanh(mean[row] + std[row] * noise[:, row])
        densities = [tanh_normal_log_prob(a, mean[row], std[row]) for a in draws]
        choices.append(int(np.argmax(densities)))
        expected.append(draws[choices[-1]])
    assert len(set(choices)) > 1  # one choice for all would be seen
    np.testing.assert_allclose(dist.mode(samples, SEED), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("mean", "actions", "least", "most"),
    [(1.0, 1, 1.0, 1.0), (0.25, 1, 0.99, 1.0), (1.0, 2, 0.77, 0.84)],
)
def test_the_mean_decides_the_sign_of_a_wide_policys_mode(
    mean: float, actions: int, least: float, most: float
):
    """As in the TF2 release, where draws at the border tie. An exact density took the mean's sign
    in 81, 59 and 74 % of these cases."""
    means = tf.fill([1000, actions], mean)
    mode = TanhNormal(means, tf.fill([1000, actions], 5.0)).mode(100, SEED).numpy()
    assert least <= (mode > 0).mean() <= most


def test_clipped_normal_is_a_normal_before_its_clipping() -> None:
    """The second component is clipped, so its sample passes no gradient; the density has both."""
    mean, std = tf.constant([[0.3, 0.9]]), tf.constant([[0.5, 0.4]])
    noise = tf.constant([[1.0, 2.0]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([mean, std])
        dist = ClippedNormal(mean, std)
        action, log_prob = dist.from_noise(noise)
        score = dist.score(noise, log_prob)
        entropy = dist.entropy(log_prob)
    np.testing.assert_allclose(action, [[0.8, 1.0]], rtol=1e-6)
    x = np.float64(mean + std * noise)
    expected = normal_log_prob(x, np.float64(mean), np.float64(std)).sum(-1)
    for density in (log_prob, score, dist.log_prob(x.astype(np.float32))):
        np.testing.assert_allclose(density, expected, rtol=1e-5)
    np.testing.assert_allclose(
        entropy, np.log(np.float64(std) * math.sqrt(2 * math.pi * math.e)).sum(-1), rtol=1e-5
    )
    np.testing.assert_allclose(tape.gradient(action, mean), [[1.0, 0.0]])
    np.testing.assert_allclose(tape.gradient(action, std), [[1.0, 0.0]])
    np.testing.assert_allclose(tape.gradient(score, mean), noise / std, rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(score, std), (noise**2 - 1) / std, rtol=1e-5)
    np.testing.assert_array_equal(dist.mode(100, SEED), mean)


def test_onehot_samples_follow_the_probabilities() -> None:
    logits = tf.constant([0.0, 1.0, -1.0, 2.0])
    noise = tf.random.stateless_normal([20000, 4], SEED)
    action, log_prob = StraightThroughOneHot(tf.tile(logits[None], [20000, 1])).from_noise(noise)
    probs = np.exp(logits) / np.exp(logits).sum()
    assert set(np.unique(action.numpy())) == {0.0, 1.0}  # exactly: files hold what was done
    assert (action.numpy().sum(-1) == 1.0).all()
    np.testing.assert_allclose(action.numpy().mean(0), probs, atol=0.012)
    chosen = action.numpy().argmax(-1)
    np.testing.assert_allclose(log_prob, np.log(probs)[chosen], rtol=1e-4)


def test_onehot_gradient_is_that_of_the_probabilities() -> None:
    logits = tf.random.stateless_normal([5, 4], [1, 3])
    noise = tf.random.stateless_normal([5, 4], SEED)
    direction = tf.random.stateless_normal([5, 4], [1, 4])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        action, _ = StraightThroughOneHot(logits).from_noise(noise)
        sampled = tf.reduce_sum(direction * action)
        plain = tf.reduce_sum(direction * tf.nn.softmax(logits))
    np.testing.assert_allclose(
        tape.gradient(sampled, logits), tape.gradient(plain, logits), rtol=1e-5, atol=1e-7
    )


def test_onehot_log_prob_takes_no_gradient_through_the_action() -> None:
    """What the score function needs: only the density's own parameters move."""
    logits = tf.constant([[0.2, -0.4, 1.0]])
    action = tf.constant([[0.0, 1.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch([logits, action])
        log_prob = StraightThroughOneHot(logits).log_prob(action)
    of_logits, of_action = tape.gradient(log_prob, [logits, action])
    assert of_action is None
    np.testing.assert_allclose(of_logits, action - tf.nn.softmax(logits), rtol=1e-5)


def test_onehot_mode_is_the_most_probable_of_each_row() -> None:
    logits = tf.constant([[0.0, 3.0, 1.0], [5.0, -1.0, 2.0], [0.0, 0.1, 0.2]])
    expected = [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    np.testing.assert_array_equal(StraightThroughOneHot(logits).mode(100, SEED), expected)


def test_onehot_extreme_noise_stays_finite() -> None:
    dist = StraightThroughOneHot(tf.constant([[0.0, 1.0], [0.0, 1.0]]))
    action, log_prob = dist.from_noise(tf.constant([[40.0, -40.0], [-40.0, 40.0]]))
    np.testing.assert_allclose(action, [[1.0, 0.0], [0.0, 1.0]], atol=1e-6)
    assert np.isfinite(log_prob).all()


def test_a_product_of_onehots_is_each_of_them_alone() -> None:
    rng, sizes = np.random.default_rng(0), (2, 3)
    logits, noise = (tf.constant(rng.normal(size=(7, 5)), tf.float32) for _ in range(2))
    both = ProductOfOneHots(logits, sizes)
    alone = [StraightThroughOneHot(part) for part in tf.split(logits, sizes, -1)]
    noises = tf.split(noise, sizes, -1)
    drawn = [one.from_noise(own) for one, own in zip(alone, noises, strict=True)]
    action, log_prob = both.from_noise(noise)
    np.testing.assert_array_equal(action, np.concatenate([a for a, _ in drawn], -1))
    np.testing.assert_allclose(log_prob, sum(log for _, log in drawn), rtol=1e-6)
    np.testing.assert_allclose(both.log_prob(action), log_prob, rtol=1e-6)
    entropy = sum(one.entropy(log_prob) for one in alone)
    np.testing.assert_allclose(both.entropy(log_prob), entropy, rtol=1e-6)
    modes = np.concatenate([one.mode(1, SEED) for one in alone], -1)
    np.testing.assert_array_equal(both.mode(1, SEED), modes)


def test_a_share_of_the_uniform_distribution():
    logits = np.float32([[0.0, 1.0, -50.0], [3.0, 3.0, 80.0]])
    probs = np.exp(np.float64(logits) - logits.max(-1, keepdims=True))
    probs /= probs.sum(-1, keepdims=True)
    mixed = mix_uniform(tf.constant(logits), 0.03)
    np.testing.assert_allclose(tf.nn.softmax(mixed), 0.97 * probs + 0.01, rtol=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(tf.exp(mixed), -1), 1, rtol=1e-5)
    assert mix_uniform(logits, 0.0) is logits


def test_the_score_of_a_tanh_normal_is_by_hand():
    """The gradients of log Normal(x | m, s) at a held x = m + s e are e / s and (e^2 - 1) / s."""
    mean, std, noise = (tf.constant([[x, y]]) for x, y in ((0.3, -1.0), (0.5, 2.0), (1.5, -0.2)))
    with tf.GradientTape() as tape:
        tape.watch([mean, std])
        dist = TanhNormal(mean, std)
        log_prob = dist.from_noise(noise)[1]
        score = dist.score(noise, log_prob)
    np.testing.assert_allclose(score, log_prob, rtol=1e-6)
    by_mean, by_std = tape.gradient(score, [mean, std])
    np.testing.assert_allclose(by_mean, noise / std, rtol=1e-5)
    np.testing.assert_allclose(by_std, (noise**2 - 1) / std, rtol=1e-5)
