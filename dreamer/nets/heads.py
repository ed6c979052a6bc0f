"""Heads that predict a scalar: reward, value, discount (arXiv 1912.01603, appendices A and C)."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_probability as tfp

from dreamer.nets.layers import MLP
from dreamer.nets.scaling import RunningScale

_TRANSFORMS = {"none": tf.identity, "tanh": tf.tanh}


class ScalarHead(MLP):
    """An MLP with one output.

    Args:
        layers: Hidden layers.
        units: Their width.

    Input shape: float32 [N, F]. Output shape: float32 [N].
    """

    def __init__(self, *, layers: int, units: int, **kwargs):
        super().__init__(layers, units, 1, **kwargs)

    def call(self, feat: tf.Tensor) -> tf.Tensor:
        return tf.squeeze(super().call(feat), -1)


class Value(ScalarHead):
    """Predicts the lambda-return of a state, which includes the state's own reward."""


class Reward(ScalarHead):
    """Predicts the reward received on arriving in a state, as a Normal with unit variance.

    Args:
        layers, units: As ScalarHead's.
        transform: "none"; "tanh" as in the paper on Atari and DeepMind Lab (appendix A); or
            "normalize", the reward divided by its root mean square in the replay.
    """

    def __init__(self, *, transform: str = "none", **kwargs):
        super().__init__(**kwargs)
        self.scale: RunningScale | None = None
        if transform == "normalize":
            self.scale = RunningScale(1, centered=False, name="scale")
        self._transform = self._normalized if self.scale else _TRANSFORMS[transform]

    def build(self, input_shape):
        if self.scale:
            self.scale.build()
        super().build(input_shape)

    def target(self, reward: tf.Tensor) -> tf.Tensor:
        """The environment's reward on the scale that this head learns, [...] -> [...]."""
        return self._transform(reward)

    def _normalized(self, reward: tf.Tensor) -> tf.Tensor:
        assert self.scale is not None
        return tf.squeeze(self.scale(reward[..., None]), -1)

    def log_prob(self, feat: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """Log density of targets: float32 [N, F], [N] -> [N]."""
        return tfp.distributions.Normal(self(feat), 1.0).log_prob(target)


class Discount(ScalarHead):
    """Predicts gamma * cont of a state, as the mean of a Bernoulli, in (0, 1).

    Args:
        gamma: Discount factor.
        scale: Weight of `loss`.
        layers, units: As ScalarHead's.
    """

    def __init__(self, *, gamma: float, scale: float, **kwargs):
        super().__init__(**kwargs)
        self._gamma, self._scale = gamma, scale

    def call(self, feat: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(super().call(feat))

    def log_prob(self, feat: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """Log likelihood of soft targets in [0, 1]: float32 [N, F], [N] -> [N]."""
        logits = super().call(feat)
        return tfp.distributions.Bernoulli(logits=logits, dtype=tf.float32).log_prob(target)

    def loss(self, feat: tf.Tensor, cont: tf.Tensor) -> tf.Tensor:
        """- scale * mean log Bernoulli(gamma * cont): float32 [N, F], [N] -> []."""
        return -self._scale * tf.reduce_mean(self.log_prob(feat, self._gamma * cont))
