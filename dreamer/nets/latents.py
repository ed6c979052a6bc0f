"""What the stochastic state of the latent dynamics is: a Normal, or categories."""

from __future__ import annotations

from typing import Protocol

import tensorflow as tf
import tensorflow_probability as tfp

from dreamer.ops.distributions import StraightThroughOneHot, diagonal_normal, mix_uniform

# Parameters of the latent distribution by name, its sample stoch [..., S], and deter [..., D].
State = dict[str, tf.Tensor]


class Latent(Protocol):
    """A distribution over stochastic states.

    Attributes:
        size: S, the width of a sample, and of the noise that it is made from.
        outputs: Width of the network's output that `parameters` takes.
        keys: Names of the parameters in a State.
    """

    size: int
    outputs: int
    keys: tuple[str, ...]

    def parameters(self, outputs: tf.Tensor) -> State:
        """The parameters, from a network's output float32 [..., outputs]."""
        raise NotImplementedError

    def sample(self, state: State, noise: tf.Tensor) -> tf.Tensor:
        """A sample [..., S] that passes gradients, from standard Normal noise [..., S]."""
        raise NotImplementedError

    def mean(self, state: State) -> tf.Tensor:
        """The mean [..., S]."""
        raise NotImplementedError

    def dist(self, state: State) -> tfp.distributions.Distribution:
        """The distribution, with batch shape [...]."""
        raise NotImplementedError


class NormalLatent:
    """A Normal with independent components.

    Args:
        size: S.
        min_std: Added to the standard deviations.
    """

    keys: tuple[str, ...] = ("mean", "std")

    def __init__(self, size: int, min_std: float):
        self.size, self.outputs, self._min_std = size, 2 * size, min_std

    def parameters(self, outputs: tf.Tensor) -> State:
        """Mean and std, [..., S] each."""
        mean, std = tf.split(outputs, 2, -1)
        return {"mean": mean, "std": tf.nn.softplus(std) + self._min_std}

    def sample(self, state: State, noise: tf.Tensor) -> tf.Tensor:
        """mean + std * noise."""
        return state["mean"] + state["std"] * noise

    def mean(self, state: State) -> tf.Tensor:
        """The parameter itself."""
        return state["mean"]

    def dist(self, state: State) -> tfp.distributions.Distribution:
        """Events [S]."""
        return diagonal_normal(state["mean"], state["std"])


class CategoricalLatent:
    """One category of each of several variables, with straight-through gradients (DreamerV2,
    arXiv 2010.02193, section 2; the uniform share is DreamerV3's, arXiv 2301.04104).

    Args:
        variables: Number of categorical variables G.
        classes: Categories of each, C. S = G * C.
        unimix: Share of the uniform distribution.
    """

    keys: tuple[str, ...] = ("logits",)

    def __init__(self, variables: int, classes: int, unimix: float):
        self.size = self.outputs = variables * classes
        self._shape, self._unimix = (variables, classes), unimix

    def parameters(self, outputs: tf.Tensor) -> State:
        """Logits [..., S], after the mixture."""
        return {"logits": self._joined(mix_uniform(self._split(outputs), self._unimix))}

    def sample(self, state: State, noise: tf.Tensor) -> tf.Tensor:
        """G one-hot vectors, joined."""
        dist = StraightThroughOneHot(self._split(state["logits"]))
        return self._joined(dist.from_noise(self._split(noise))[0])

    def mean(self, state: State) -> tf.Tensor:
        """The probabilities."""
        return self._joined(tf.nn.softmax(self._split(state["logits"])))

    def dist(self, state: State) -> tfp.distributions.Distribution:
        """Events [G, C]."""
        logits = self._split(state["logits"])
        onehot = tfp.distributions.OneHotCategorical(logits=logits, dtype=tf.float32)
        return tfp.distributions.Independent(onehot, 1)

    def _split(self, joined: tf.Tensor) -> tf.Tensor:
        return tf.reshape(joined, [*joined.shape[:-1], *self._shape])

    def _joined(self, split: tf.Tensor) -> tf.Tensor:
        return tf.reshape(split, [*split.shape[:-2], self.size])
