"""The heads that predict a scalar: reward, value and discount."""

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from dreamer.config.config import load_config
from dreamer.nets.heads import Discount, Reward, Value

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
    given = load_config().section(section).items()
    of_the_agent = "enabled", "slow_rate", "slow_role", "slow_every", "replay_scale"
    keys = {k: v for k, v in given if k not in of_the_agent}
    head = kind(**keys, **({"gamma": 0.99} if kind is Discount else {}))
    head.build((None, 230))
    kernels = [tuple(v.shape) for v in head.trainable_variables if len(v.shape) == 2]
    assert kernels == [(230, 400), *[(400, 400)] * (hidden - 1), (400, 1)]


def test_rewards_have_unit_variance() -> None:
    head, target = make(Reward), np.linspace(-2, 2, 6).astype(np.float32)
    mean = head(FEAT)
    assert mean.shape == (6,) and mean.dtype == tf.float32
    expected = -0.5 * (target - mean.numpy()) ** 2 - 0.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(head.log_prob(FEAT, target), expected, rtol=1e-5)


def test_targets_of_rewards() -> None:
    rewards = tf.constant([-3.0, 0.0, 0.5, 20.0])
    plain, bounded = (make(Reward, transform=name) for name in ("none", "tanh"))
    np.testing.assert_array_equal(plain.target(rewards), rewards)
    np.testing.assert_allclose(bounded.target(rewards), np.tanh(rewards), rtol=1e-6)


def test_discounts_likelihood_of_soft_targets() -> None:
    assert load_config().discount.scale == 10.0
    head = make(Discount, gamma=0.9, scale=10.0)
    p = head(FEAT).numpy().astype(np.float64)
    assert p.shape == (6,) and ((p > 0) & (p < 1)).all()
    target = np.float32([0.0, 0.99, 0.5, 1.0, 0.99, 0.0])
    expected = target * np.log(p) + (1 - target) * np.log(1 - p)
    np.testing.assert_allclose(head.log_prob(FEAT, tf.constant(target)), expected, rtol=1e-4)
    loss = head.loss(FEAT, tf.constant(target / 0.9))
    np.testing.assert_allclose(loss, -10.0 * expected.mean(), rtol=1e-4)


def test_extreme_logits_stay_finite() -> None:
    head, feat = make(Discount, gamma=0.99, scale=1.0), tf.zeros([1, 5])
    for logit in (-200.0, 200.0):
        head.trainable_variables[-1].assign([logit])
        assert np.isfinite(head.log_prob(feat, tf.constant([0.5]))).all()
