"""The heads that predict a scalar: reward, value and discount."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from dreamer.config.config import load_config
from dreamer.nets.discount import Discount
from dreamer.nets.reward import Reward
from dreamer.nets.value import Value

FEAT = tf.random.stateless_normal([6, 5], [0, 1])


def make(kind: type, **settings: Any):
    head = kind(layers=1, units=4, **settings)
    head.build((None, 5))
    return head


@pytest.mark.parametrize(
    ("kind", "section", "hidden"),
    [(Reward, "reward", 2), (Value, "value", 3), (Discount, "discount", 3)],
)
def test_published_layers(kind: type, section: str, hidden: int) -> None:
    keys = load_config().section(section)
    head = kind(layers=keys["layers"], units=keys["units"])
    head.build((None, 230))
    kernels = [tuple(v.shape) for v in head.trainable_variables if len(v.shape) == 2]
    assert kernels == [(230, 400), *[(400, 400)] * (hidden - 1), (400, 1)]


@pytest.mark.parametrize("kind", [Reward, Value])
def test_normal_with_unit_variance(kind: type) -> None:
    head, target = make(kind), np.linspace(-2, 2, 6)
    mean, dist = head(FEAT), head.dist(FEAT)
    assert mean.shape == (6,) and mean.dtype == tf.float32
    np.testing.assert_array_equal(dist.mean(), mean)
    expected = -0.5 * (target - mean.numpy()) ** 2 - 0.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(dist.log_prob(target.astype(np.float32)), expected, rtol=1e-5)


def test_targets_of_rewards() -> None:
    rewards = tf.constant([-3.0, 0.0, 0.5, 20.0])
    plain, bounded = (make(Reward, transform=name) for name in ("none", "tanh"))
    np.testing.assert_array_equal(plain.target(rewards), rewards)
    np.testing.assert_allclose(bounded.target(rewards), np.tanh(rewards), rtol=1e-6)
    with pytest.raises(ValueError, match="transform should be one of"):
        make(Reward, transform="sign")


def test_discounts_likelihood_of_soft_targets() -> None:
    assert load_config().discount.scale == 10.0
    head = make(Discount)
    p = head(FEAT).numpy().astype(np.float64)
    assert p.shape == (6,) and ((p > 0) & (p < 1)).all()
    target = np.float32([0.0, 0.99, 0.5, 1.0, 0.99, 0.0])
    expected = target * np.log(p) + (1 - target) * np.log(1 - p)
    np.testing.assert_allclose(head.log_prob(FEAT, tf.constant(target)), expected, rtol=1e-4)


def test_the_best_discount_is_the_target() -> None:
    """With the target gamma * cont = 0.99, the likelihood is largest where the mean is 0.99."""
    head, feat = make(Discount), tf.zeros([1, 5])
    bias, logits = head.trainable_variables[-1], np.linspace(2, 7, 501)
    likelihood = []
    for logit in logits:
        bias.assign([logit])
        likelihood.append(float(head.log_prob(feat, tf.constant([0.99]))[0]))
    bias.assign([logits[np.argmax(likelihood)]])
    np.testing.assert_allclose(head(feat), [0.99], atol=2e-4)


def test_extreme_logits_stay_finite() -> None:
    head, feat = make(Discount), tf.zeros([1, 5])
    for logit in (-200.0, 200.0):
        head.trainable_variables[-1].assign([logit])
        assert np.isfinite(head.log_prob(feat, tf.constant([0.5]))).all()
