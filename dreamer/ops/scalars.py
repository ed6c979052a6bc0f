"""Predictions of a scalar: a unit Normal, or a two-hot distribution over bins; symlog."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tensorflow as tf

from dreamer.ops.distributions import unit_normal_log_prob


def symlog(x: tf.Tensor) -> tf.Tensor:
    """sign(x) log(1 + |x|) (DreamerV3, arXiv 2301.04104, equation 9)."""
    return tf.sign(x) * tf.math.log1p(tf.abs(x))


def symexp(x: tf.Tensor) -> tf.Tensor:
    """sign(x) (exp(|x|) - 1), the inverse of `symlog`."""
    return tf.sign(x) * tf.math.expm1(tf.abs(x))


def make_bins(count: int) -> np.ndarray:
    """`count` values, an odd number, from symexp(-20) to symexp(20) (DreamerV3, equation 10).

    They lie evenly on the scale of symlog, so 0 is among them, and the opposite of each.
    """
    half = np.expm1(np.linspace(0.0, 20.0, count // 2 + 1)[1:]).astype(np.float32)
    return np.concatenate([-half[::-1], [np.float32(0)], half])


def two_hot(x: tf.Tensor, bins: np.ndarray) -> tf.Tensor:
    """Weights of the bins whose mean is x: on the two next to x, by how near each is.

    Args:
        x: float32 [...]. Beyond the last bin it counts as the last bin.
        bins: float32 [K], increasing.
    Returns:
        float32 [..., K], not negative, of sum 1.
    """
    last = len(bins) - 1
    inside = tf.clip_by_value(x, bins[0], bins[-1])
    below = tf.searchsorted(bins, tf.reshape(inside, [-1]), side="right") - 1
    below = tf.reshape(tf.clip_by_value(below, 0, last - 1), tf.shape(x))
    low, high = tf.gather(bins, below), tf.gather(bins, below + 1)
    share = ((inside - low) / (high - low))[..., None]
    return (1.0 - share) * tf.one_hot(below, last + 1) + share * tf.one_hot(below + 1, last + 1)


@dataclass(frozen=True)
class UnitNormal:
    """Normal with unit variance.

    Attributes:
        mean: float32 [...].
    """

    mean: tf.Tensor

    def log_prob(self, target: tf.Tensor) -> tf.Tensor:
        """Log density of float32 [...]: [...]."""
        return unit_normal_log_prob(target, self.mean, 0)

    def before_last(self) -> UnitNormal:
        """The same without the last entry of axis 1."""
        return UnitNormal(self.mean[:, :-1])


@dataclass(frozen=True)
class TwoHot:
    """Categorical over bins, learnt from two-hot targets (DreamerV3, equations 8 to 10).

    Unlike a Normal's, its gradient does not grow with the target, whatever the target's size.

    Attributes:
        logits: float32 [..., K].
        bins: float32 [K], from `make_bins`.
    """

    logits: tf.Tensor
    bins: np.ndarray

    @cached_property
    def mean(self) -> tf.Tensor:
        """Expected value, [...].

        Opposite bins are taken together first, so that equal probabilities give exactly 0.
        """
        probs, middle = tf.nn.softmax(self.logits), len(self.bins) // 2
        above, below = probs[..., middle + 1 :], probs[..., :middle]
        return tf.linalg.matvec(above - tf.reverse(below, [-1]), self.bins[middle + 1 :])

    def log_prob(self, target: tf.Tensor) -> tf.Tensor:
        """sum_k two_hot_k(target) log p_k, of float32 [...]: [...]."""
        log_probs = tf.nn.log_softmax(self.logits)
        return tf.reduce_sum(two_hot(tf.stop_gradient(target), self.bins) * log_probs, -1)

    def before_last(self) -> TwoHot:
        """The same without the last entry of axis 1."""
        return TwoHot(self.logits[:, :-1], self.bins)
