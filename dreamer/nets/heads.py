"""Heads that predict a scalar: reward, value, discount (arXiv 1912.01603, appendices A and C)."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_probability as tfp

from dreamer.nets.layers import MLP
from dreamer.nets.scaling import RunningScale
from dreamer.ops.scalars import TwoHot, UnitNormal, make_bins
from dreamer.ops.shapes import over_leading

_TRANSFORMS = {"none": tf.identity, "tanh": tf.tanh}


class ScalarHead(MLP):
    """Predicts a scalar by an MLP: as a Normal with unit variance, or by two-hot codes.

    Args:
        layers: Hidden layers.
        units: Their width.
        bins: K of the two-hot code. The output layer then begins with zeros, which predict 0, as
            in DreamerV3. 0: a Normal.

    Input shape: float32 [N, F]. Output shape: float32 [N], the mean.
    """

    def __init__(self, *, layers: int, units: int, bins: int = 0, **kwargs):
        super().__init__(layers, units, bins or 1, out_scale=0.0 if bins else 1.0, **kwargs)
        self._bins = make_bins(bins) if bins else None

    def call(self, feat: tf.Tensor) -> tf.Tensor:
        return self.predict(feat).mean

    def predict(self, feat: tf.Tensor) -> UnitNormal | TwoHot:
        """The distribution [...] of the scalar, given features [..., F]."""
        outputs = over_leading(super().call, feat)
        if self._bins is None:
            return UnitNormal(tf.squeeze(outputs, -1))
        return TwoHot(outputs, self._bins)


class Value(ScalarHead):
    """Predicts the lambda-return of a state, which includes the state's own reward."""


class Reward(ScalarHead):
    """Predicts the reward received on arriving in a state, as a Normal with unit variance.

    Args:
        layers, units, bins: As ScalarHead's.
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
        return self.predict(feat).log_prob(target)


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
