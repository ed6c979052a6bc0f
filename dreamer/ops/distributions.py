"""Distributions that TensorFlow Probability does not have as one class.

All parameters and densities are float32, whatever the precision of the networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions
tfb = tfp.bijectors
LARGEST = 0.99999994  # float32 below 1


def diagonal_normal(mean: tf.Tensor, std: tf.Tensor) -> tfp.distributions.Distribution:
    """Normal with independent components, one event over the last axis."""
    return tfd.Independent(tfd.Normal(mean, std), 1)


def unit_normal_log_prob(target: tf.Tensor, mean: tf.Tensor, event_ndims: int) -> tf.Tensor:
    """Log density of Normal(mean, 1), constants included, summed over the last axes.

    TensorFlow Probability's Normal divides by the scale and adds the constant for each pixel: five
    passes over the largest tensors of the update instead of two.

    Args:
        target, mean: float32 [..., *event].
        event_ndims: Rank of an event.
    Returns:
        float32 [...].
    """
    axes = list(range(-event_ndims, 0))
    size = math.prod(mean.shape[-event_ndims:]) if event_ndims else 1
    squares = tf.math.squared_difference(target, mean)
    total = tf.reduce_sum(squares, axes) if event_ndims else squares
    return -0.5 * total - 0.5 * size * math.log(2.0 * math.pi)


def inverse_softplus(x: float) -> float:
    """The number whose softplus is x > 0."""
    return math.log(math.expm1(x))


def mix_uniform(logits: tf.Tensor, share: float) -> tf.Tensor:
    """Logits of (1 - share) softmax(logits) + share / A, [..., A] (DreamerV3's unimix)."""
    if not share:
        return logits
    return tf.math.log((1.0 - share) * tf.nn.softmax(logits) + share / logits.shape[-1])


class TanhNormal:
    """A Normal squashed into (-1, 1) by tanh; reparameterised; one event over the last axis.

    Args:
        mean: float32 [..., A], mean before the squashing.
        std: float32 [..., A], positive.
    """

    def __init__(self, mean: tf.Tensor, std: tf.Tensor):
        self._base = diagonal_normal(mean, std)
        self._mean, self._std = mean, std

    def from_noise(self, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Sample and its log density from standard Normal noise [..., A]: [..., A] and [...].

        The density is taken at the unsquashed value, so that it stays finite where tanh rounds
        to one.
        """
        unsquashed = self._mean + self._std * noise
        return tf.tanh(unsquashed), self._log_prob_unsquashed(unsquashed)

    def log_prob(self, action: tf.Tensor) -> tf.Tensor:
        """Log density [...] of actions [..., A]; those at the border are moved just inside."""
        limit = 1.0 - 1e-6
        return self._log_prob_unsquashed(tf.atanh(tf.clip_by_value(action, -limit, limit)))

    def score(self, noise: tf.Tensor, log_prob: tf.Tensor) -> tf.Tensor:
        """Log density [...] of the sample of `from_noise`, which itself passes no gradient.

        Args:
            noise: What the sample was made from.
            log_prob: What `from_noise` returned with it.
        """
        del log_prob
        return self._log_prob_unsquashed(tf.stop_gradient(self._mean + self._std * noise))

    def entropy(self, log_prob: tf.Tensor) -> tf.Tensor:
        """Estimate of the entropy [...] from the log density of one sample of `from_noise`."""
        return -log_prob

    def mode(self, samples: int, seed: tf.Tensor) -> tf.Tensor:
        """The densest of `samples` draws, chosen for each row by itself: [..., A].

        The density is cut off where tanh rounds to one, as in the TF2 release. It grows without
        bound towards the border for a wide policy, so that otherwise the most extreme draw wins,
        whatever its sign. With the cut, draws at a border tie, and the mean's sign decides. The
        TF2 release takes row 0's choice for the whole batch.

        Args:
            samples: How many to draw.
            seed: int32 [2], stateless seed.
        """
        shape = tf.concat([[samples], tf.shape(self._mean)], 0)
        actions, _ = self.from_noise(tf.random.stateless_normal(shape, seed))
        inside = tf.clip_by_value(actions, -LARGEST, LARGEST)
        best = tf.argmax(self._log_prob_unsquashed(tf.atanh(inside)), axis=0)  # [...]
        chosen = tf.one_hot(best, samples, axis=0)  # [samples, ...]
        return tf.reduce_sum(actions * chosen[..., None], axis=0)

    def _log_prob_unsquashed(self, unsquashed: tf.Tensor) -> tf.Tensor:
        correction = tfb.Tanh().forward_log_det_jacobian(unsquashed, event_ndims=1)
        return self._base.log_prob(unsquashed) - correction


class ClippedNormal:
    """A Normal whose samples are clipped to [-1, 1]; one event over the last axis.

    Densities and entropy are those of the Normal, before the clipping, as in DreamerV3 (arXiv
    2301.04104), whose environments clip. Here samples are clipped at once, so that the dynamics see
    the same actions in imagination as in the replay.

    Args:
        mean: float32 [..., A], in (-1, 1).
        std: float32 [..., A], positive.
    """

    def __init__(self, mean: tf.Tensor, std: tf.Tensor):
        self._base = diagonal_normal(mean, std)
        self._mean, self._std = mean, std

    def from_noise(self, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Sample and its log density from standard Normal noise [..., A]: [..., A] and [...].

        It is reparameterised; a component that is clipped has no gradient.
        """
        sample = self._mean + self._std * noise
        return tf.clip_by_value(sample, -1.0, 1.0), self._base.log_prob(sample)

    def log_prob(self, action: tf.Tensor) -> tf.Tensor:
        """Log density [...] of actions [..., A]."""
        return self._base.log_prob(action)

    def score(self, noise: tf.Tensor, log_prob: tf.Tensor) -> tf.Tensor:
        """Log density [...] of the sample before its clipping, which passes no gradient."""
        del log_prob
        return self._base.log_prob(tf.stop_gradient(self._mean + self._std * noise))

    def entropy(self, log_prob: tf.Tensor) -> tf.Tensor:
        """The entropy [...], exactly; the argument is TanhNormal's."""
        del log_prob
        return self._base.entropy()

    def mode(self, samples: int, seed: tf.Tensor) -> tf.Tensor:
        """The mean [..., A]; the arguments are TanhNormal's."""
        del samples, seed
        return self._mean


class StraightThroughOneHot:
    """One-hot categorical whose samples pass their gradient to the probabilities.

    The straight-through estimate (Bengio et al., arXiv 1308.3432) is biased wherever what follows
    is not linear in the sample.

    Args:
        logits: float32 [..., A].
    """

    def __init__(self, logits: tf.Tensor):
        self._logits = logits
        self._dist = tfd.OneHotCategorical(logits=logits, dtype=tf.float32)

    def probabilities(self) -> tf.Tensor:
        """The probability of each choice, float32 [..., A]."""
        return tf.nn.softmax(self._logits)

    def from_noise(self, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Sample and its log probability from standard Normal noise [..., A]: [..., A] and [...].

        Its distribution function turns the Normal noise into Gumbel noise, so that both kinds of
        actor take the same random numbers.
        """
        tiny = 1e-6
        uniform = tf.clip_by_value(tfd.Normal(0.0, 1.0).cdf(noise), tiny, 1.0 - tiny)
        gumbel = -tf.math.log(-tf.math.log(uniform))
        hard = self._one_hot(self._logits + gumbel)
        probs = tf.nn.softmax(self._logits)
        # The difference first: it is exactly 0, so that actions are exactly one-hot.
        return hard + (probs - tf.stop_gradient(probs)), self.log_prob(hard)

    def log_prob(self, action: tf.Tensor) -> tf.Tensor:
        """Log probability [...] of one-hot actions [..., A]."""
        return self._dist.log_prob(tf.stop_gradient(action))

    def score(self, noise: tf.Tensor, log_prob: tf.Tensor) -> tf.Tensor:
        """The log probability that `from_noise` returned: its sample passes no gradient to it."""
        del noise
        return log_prob

    def entropy(self, log_prob: tf.Tensor) -> tf.Tensor:
        """The entropy [...], exactly; the argument is TanhNormal's."""
        del log_prob
        return self._dist.entropy()

    def mode(self, samples: int, seed: tf.Tensor) -> tf.Tensor:
        """The most probable action as one-hot [..., A]; the arguments are TanhNormal's."""
        del samples, seed
        return self._one_hot(self._logits)

    def _one_hot(self, scores: tf.Tensor) -> tf.Tensor:
        return tf.one_hot(tf.argmax(scores, axis=-1), scores.shape[-1])


class ProductOfOneHots:
    """Independent one-hot categoricals, whose samples stand in a row.

    Args:
        logits: float32 [..., A].
        sizes: Sizes of the categoricals; they sum to A.
    """

    def __init__(self, logits: tf.Tensor, sizes: Sequence[int]):
        self._sizes = list(sizes)
        self._parts = [StraightThroughOneHot(part) for part in tf.split(logits, self._sizes, -1)]

    def probabilities(self) -> tf.Tensor:
        """The probability of each choice within its categorical, float32 [..., A]."""
        return tf.concat([part.probabilities() for part in self._parts], -1)

    def from_noise(self, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Sample and its log probability, as StraightThroughOneHot's."""
        noises = tf.split(noise, self._sizes, -1)
        drawn = [part.from_noise(own) for part, own in zip(self._parts, noises, strict=True)]
        return tf.concat([action for action, _ in drawn], -1), tf.add_n([log for _, log in drawn])

    def log_prob(self, action: tf.Tensor) -> tf.Tensor:
        """Log probability [...] of actions [..., A]."""
        actions = tf.split(action, self._sizes, -1)
        return tf.add_n([p.log_prob(own) for p, own in zip(self._parts, actions, strict=True)])

    def score(self, noise: tf.Tensor, log_prob: tf.Tensor) -> tf.Tensor:
        """The log probability that `from_noise` returned: its sample passes no gradient to it."""
        del noise
        return log_prob

    def entropy(self, log_prob: tf.Tensor) -> tf.Tensor:
        """The entropy [...], exactly; the argument is TanhNormal's."""
        return tf.add_n([part.entropy(log_prob) for part in self._parts])

    def mode(self, samples: int, seed: tf.Tensor) -> tf.Tensor:
        """The most probable action [..., A]; the arguments are TanhNormal's."""
        return tf.concat([part.mode(samples, seed) for part in self._parts], -1)


def largest(scores: tf.Tensor, sizes: Sequence[int]) -> tf.Tensor:
    """The one-hot vector of the largest score in each of some parts in a row: [..., A] -> [..., A].

    `sizes` are those of the parts; they sum to A.
    """
    parts = tf.split(scores, list(sizes), -1)
    return tf.concat([tf.one_hot(tf.argmax(part, -1), part.shape[-1]) for part in parts], -1)
