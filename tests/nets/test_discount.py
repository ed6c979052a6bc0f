"""The discount head: a Bernoulli with soft targets."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from dreamer.config.config import load_config
from dreamer.nets.discount import Discount


def make() -> Discount:
    head = Discount(layers=1, units=4)
    head.build((None, 5))
    return head


def test_published_layers() -> None:
    section = load_config().section("discount")
    assert section["scale"] == 10.0
    head = Discount(layers=section["layers"], units=section["units"])
    head.build((None, 230))
    kernels = [tuple(v.shape) for v in head.trainable_variables if len(v.shape) == 2]
    assert kernels == [(230, 400), (400, 400), (400, 400), (400, 1)]


def test_likelihood_of_soft_targets() -> None:
    head, feat = make(), tf.random.stateless_normal([6, 5], [0, 1])
    p = head(feat).numpy().astype(np.float64)
    assert p.shape == (6,) and ((p > 0) & (p < 1)).all()
    target = np.float32([0.0, 0.99, 0.5, 1.0, 0.99, 0.0])
    expected = target * np.log(p) + (1 - target) * np.log(1 - p)
    np.testing.assert_allclose(head.log_prob(feat, tf.constant(target)), expected, rtol=1e-4)


def test_the_best_mean_is_the_target() -> None:
    """With the target gamma * cont = 0.99, the likelihood is largest where the mean is 0.99."""
    head, feat = make(), tf.zeros([1, 5])
    bias = head.trainable_variables[-1]
    logits = np.linspace(2, 7, 501)
    likelihood = []
    for logit in logits:
        bias.assign([logit])
        likelihood.append(float(head.log_prob(feat, tf.constant([0.99]))[0]))
    bias.assign([logits[np.argmax(likelihood)]])
    np.testing.assert_allclose(head(feat), [0.99], atol=2e-4)


def test_extreme_logits_stay_finite() -> None:
    head, feat = make(), tf.zeros([1, 5])
    for logit in (-200.0, 200.0):
        head.trainable_variables[-1].assign([logit])
        assert np.isfinite(head.log_prob(feat, tf.constant([0.5]))).all()
