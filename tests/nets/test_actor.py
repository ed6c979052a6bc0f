"""The actor's distributions at given outputs of its network."""

import math
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dreamer.agent.networks import OF_LOSS
from dreamer.config.config import load_config
from dreamer.errors import UserError
from dreamer.nets.actor import Actor
from dreamer.nets.layer_style import LayerStyle
from dreamer.ops.distributions import StraightThroughOneHot

FEAT = tf.random.stateless_normal([6, 5], [0, 1])


def make(discrete: bool, actions: int = 3, **other: Any) -> Actor:
    sizes = {"layers": 1, "units": 4, "mean_scale": 5.0, "init_std": 5.0, "min_std": 1e-4}
    sizes |= other
    actor = Actor(actions, discrete, **sizes)
    actor.build((None, 5))
    return actor


def test_published_layers() -> None:
    section = load_config().section("actor")
    own = {k: v for k, v in section.items() if k not in OF_LOSS}
    actor = Actor(6, False, **own)
    actor.build((None, 230))
    kernels = [tuple(v.shape) for v in actor.trainable_variables if len(v.shape) == 2]
    assert kernels == [(230, 400), (400, 400), (400, 400), (400, 400), (400, 12)]


def test_tanh_normal_scales_its_mean_and_keeps_its_std_positive() -> None:
    """Normal(5 tanh(m / 5), softplus(s + inverse_softplus(5)) + 1e-4), squashed."""
    actor = make(False)
    for scale in (1.0, 30.0):
        actor.trainable_variables[-1].assign(scale * np.float32([1, -1, 0.5, 0.3, -0.3, -1]))
        m, s = np.split(actor(FEAT).numpy().astype(np.float64), 2, -1)
        mean = 5 * np.tanh(m / 5)
        std = np.logaddexp(0, s + math.log(math.expm1(5))) + 1e-4
        noise = np.random.default_rng(0).normal(size=(6, 3))
        action, log_prob = actor.dist(FEAT).from_noise(tf.constant(noise, tf.float32))
        u = mean + std * noise
        np.testing.assert_allclose(action, np.tanh(u), rtol=1e-3, atol=1e-4)
        density = -0.5 * noise**2 - np.log(std) - 0.5 * math.log(2 * math.pi)
        slope = 2 * (math.log(2) - u - np.logaddexp(0, -2 * u))  # log(1 - tanh(u)^2), stable
        np.testing.assert_allclose(log_prob, (density - slope).sum(-1), rtol=1e-3, atol=1e-2)


def test_onehot_takes_the_outputs_as_logits() -> None:
    actor = make(True)
    dist = actor.dist(FEAT)
    assert isinstance(dist, StraightThroughOneHot)
    logits = actor(FEAT).numpy()
    assert logits.shape == (6, 3)
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(
        dist.log_prob(tf.one_hot([1] * 6, 3)), expected[:, 1], rtol=1e-4, atol=1e-6
    )


V3 = {"distribution": "auto_normal", "min_std": 0.1, "max_std": 1.0}


def test_normal_has_a_bounded_mean_and_std_and_clipped_samples() -> None:
    """Normal(tanh(m), 0.9 sigmoid(s + 2) + 0.1)."""
    actor, noise = make(False, **V3), np.random.default_rng(0).normal(size=(6, 3))
    assert isinstance(make(True, **V3).dist(FEAT), StraightThroughOneHot)
    for scale in (1.0, 30.0):
        actor.trainable_variables[-1].assign(scale * np.float32([1, -1, 0.5, 0.3, -0.3, -1]))
        m, s = np.split(actor(FEAT).numpy().astype(np.float64), 2, -1)
        mean, std = np.tanh(m), 0.9 / (1 + np.exp(-s - 2)) + 0.1
        assert std.min() >= 0.1 and std.max() <= 1.0
        dist = actor.dist(FEAT)
        action, log_prob = dist.from_noise(tf.constant(noise, tf.float32))
        np.testing.assert_allclose(action, np.clip(mean + std * noise, -1, 1), rtol=1e-4, atol=1e-5)
        density = (-0.5 * noise**2 - np.log(std) - 0.5 * math.log(2 * math.pi)).sum(-1)
        np.testing.assert_allclose(log_prob, density, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(dist.mode(100, tf.constant([0, 1])), mean, rtol=1e-5, atol=1e-6)


def test_an_output_layer_that_begins_small_gives_equal_policies_everywhere() -> None:
    means = [make(False, out_scale=x, **V3).dist(FEAT).mode(1, [0, 1]) for x in (1.0, 0.01)]
    assert np.std(means[1]) < 0.05 * np.std(means[0])


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_acts_in_float32(precision: str) -> None:
    style = LayerStyle("silu", "rms")
    actor = make(False, style=style, dtype=keras.DTypePolicy(precision), **V3)
    action, log_prob = actor.dist(FEAT).from_noise(tf.zeros([6, 3]))
    assert action.dtype == log_prob.dtype == tf.float32


@pytest.mark.parametrize(
    ("discrete", "values", "message"),
    [
        (True, {"distribution": "normal"}, "normal does not fit the one-hot actions"),
        (False, {"distribution": "onehot"}, "onehot does not fit the continuous actions"),
        (False, {**V3, "max_std": 0.05}, "actor.max_std is 0.05, below actor.min_std, 0.1"),
    ],
)
def test_distributions_that_do_not_fit_are_refused(discrete, values, message) -> None:
    with pytest.raises(UserError, match=message):
        make(discrete, **values)
