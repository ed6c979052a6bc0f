"""symlog, two-hot codes and their distribution against NumPy and by hand."""

import numpy as np
import tensorflow as tf

from dreamer.ops.scalars import TwoHot, UnitNormal, make_bins, symexp, symlog, two_hot

NUMBERS = np.float32([-4e8, -1e4, -3.7, -1e-3, 0.0, 1e-6, 0.5, 1.0, 255.0, 7e4, 4.8e8])


def slow_two_hot(x: float, bins: np.ndarray) -> np.ndarray:
    code = np.zeros(len(bins))
    for k in range(len(bins) - 1):
        if bins[k] <= x <= bins[k + 1]:
            share = (x - bins[k]) / (bins[k + 1] - bins[k])
            code[k], code[k + 1] = 1 - share, share
            return code
    raise AssertionError(x)


def test_symexp_inverts_symlog():
    np.testing.assert_allclose(symexp(symlog(NUMBERS)), NUMBERS, rtol=2e-5)
    expected = np.sign(NUMBERS) * np.log(1 + np.abs(np.float64(NUMBERS)))
    np.testing.assert_allclose(symlog(NUMBERS), expected, rtol=1e-6)


def test_bins_lie_evenly_on_the_scale_of_symlog():
    bins = make_bins(255)
    np.testing.assert_allclose(symlog(bins), np.linspace(-20, 20, 255), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(bins, -bins[::-1])
    assert bins[127] == 0


def test_two_hot_codes_go_there_and_back_over_the_whole_range():
    bins = make_bins(255)
    codes = two_hot(tf.constant(NUMBERS), bins).numpy()
    expected = np.stack([slow_two_hot(x, np.float64(bins)) for x in np.float64(NUMBERS)])
    np.testing.assert_allclose(codes, expected, atol=1e-5)
    assert ((codes > 0).sum(-1) <= 2).all()
    np.testing.assert_allclose(codes.astype(np.float64) @ bins, NUMBERS, rtol=1e-5, atol=1e-7)


def test_what_is_beyond_the_last_bin_counts_as_the_last():
    codes = two_hot(tf.constant([-1e9, 1e30]), make_bins(5)).numpy()
    np.testing.assert_array_equal(codes, [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]])


def test_the_two_hot_distribution_is_by_hand():
    bins = make_bins(5)
    logits = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    target = np.float32([[-2e4, 0, 3, 4e8]] * 3)
    probs = np.exp(np.float64(logits))
    probs /= probs.sum(-1, keepdims=True)
    dist = TwoHot(tf.constant(logits), bins)
    np.testing.assert_allclose(dist.mean, probs @ np.float64(bins), rtol=1e-4)
    expected = np.zeros((3, 4))
    for place in np.ndindex(3, 4):
        expected[place] = slow_two_hot(float(target[place]), bins) @ np.log(probs[place])
    np.testing.assert_allclose(dist.log_prob(tf.constant(target)), expected, rtol=1e-5)
    np.testing.assert_allclose(dist.before_last().mean, dist.mean[:, :-1], rtol=1e-6)


def test_equal_probabilities_mean_exactly_nothing():
    assert (TwoHot(tf.zeros([7, 255]), make_bins(255)).mean.numpy() == 0).all()


def test_the_gradient_does_not_grow_with_the_target():
    """It is softmax - two_hot, at most 1 each, and none goes to the target."""
    logits, target = tf.Variable(tf.zeros([2, 255])), tf.constant([1.0, 1e8])
    with tf.GradientTape() as tape:
        tape.watch(target)
        loss = -tf.reduce_sum(TwoHot(logits, make_bins(255)).log_prob(target))
    gradient, of_target = tape.gradient(loss, [logits, target])
    assert of_target is None
    expected = 1 / 255 - two_hot(target, make_bins(255))
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_the_unit_normal_has_its_constant():
    dist = UnitNormal(tf.constant([[1.0, 3.0]]))
    expected = [[-0.5 * np.log(2 * np.pi) - 2, -0.5 * np.log(2 * np.pi)]]
    np.testing.assert_allclose(dist.log_prob(tf.constant([[3.0, 3.0]])), expected, rtol=1e-6)
    np.testing.assert_array_equal(dist.before_last().mean, [[1.0]])
