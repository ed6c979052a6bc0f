"""Actor network (arXiv 1912.01603, section 3 and appendix A)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from dreamer.errors import UserError
from dreamer.nets.layers import MLP
from dreamer.ops.distributions import (
    ClippedNormal,
    ProductOfOneHots,
    StraightThroughOneHot,
    TanhNormal,
    inverse_softplus,
    mix_uniform,
)

Policy = TanhNormal | ClippedNormal | StraightThroughOneHot | ProductOfOneHots


class Actor(MLP):
    """Maps features to a distribution over actions.

    ``tanh_normal``, continuous actions: Normal(c tanh(m / c), softplus(s + inverse_softplus(
    init_std)) + min_std) squashed by tanh, where c is `mean_scale`. ``normal``, continuous actions
    (DreamerV3): Normal(tanh(m), min_std + (max_std - min_std) sigmoid(s + 2)), clipped.
    ``onehot``, one-hot actions: categorical with straight-through gradients; several in a row are
    independent.

    Args:
        actions: A.
        discrete: Whether actions are one-hot.
        layers: Hidden layers.
        units: Their width.
        mean_scale: Bound on the mean before squashing; 5 in the paper.
        init_std: Standard deviation at the start, before squashing.
        min_std: Least standard deviation.
        max_std: Largest standard deviation of a normal.
        parts: Sizes of the one-hot vectors of an action, if it has several.
        distribution: "tanh_normal", "normal" or "onehot"; or "auto" for the first or the last, or
            "auto_normal" for the second or the last, whichever fits.
        out_scale: Factor of the output layer's initial weights.
        unimix: Share of the uniform distribution in a onehot.
        mode_samples: Samples of a tanh_normal; the densest one counts as its mode.
        evaluation: The action in evaluations: "mode", or "sample" of the policy.
    Raises:
        UserError: The distribution does not fit the actions, or max_std is below min_std.

    Input shape: float32 [N, F]. Output shape: float32 [N, outputs]. `dist` returns a distribution:
    batch shape [N], events [A].
    """

    def __init__(
        self, actions: int, discrete: bool, *, layers: int, units: int, mean_scale: float,
        init_std: float, min_std: float, max_std: float = 1.0, distribution: str = "auto",
        out_scale: float = 1.0, mode_samples: int = 100, unimix: float = 0.0,
        evaluation: str = "mode", parts: Sequence[int] = (), **kwargs,
    ):  # fmt: skip
        super().__init__(layers, units, actions if discrete else 2 * actions, out_scale, **kwargs)
        fitting = ("onehot",) if discrete else ("tanh_normal", "normal")
        choices = {name: name for name in fitting}
        choices |= {"auto": fitting[0], "auto_normal": fitting[-1]}
        if distribution not in choices:
            raise UserError(
                f"actor.distribution {distribution} does not fit the "
                f"{'one-hot' if discrete else 'continuous'} actions of this task; leave it at auto"
            )
        self._distribution = choices[distribution]
        if self._distribution == "normal" and max_std < min_std:
            raise UserError(
                f"actor.max_std is {max_std}, below actor.min_std, {min_std}; swap the two"
            )
        self.actions, self.mode_samples, self.evaluation = actions, mode_samples, evaluation
        self._mean_scale, self._unimix, self._parts = mean_scale, unimix, tuple(parts)
        self._min_std, self._max_std = min_std, max_std
        self._raw_init_std = inverse_softplus(init_std)

    def dist(self, feat: tf.Tensor) -> Policy:
        """The policy at features [N, F]."""
        return self.policy(self(feat))

    def policy(self, outputs: tf.Tensor) -> Policy:
        """The policy of which the network's outputs are [..., outputs]."""
        if self._parts:
            each = [mix_uniform(x, self._unimix) for x in tf.split(outputs, self._parts, -1)]
            return ProductOfOneHots(tf.concat(each, -1), self._parts)
        if self._distribution == "onehot":
            return StraightThroughOneHot(mix_uniform(outputs, self._unimix))
        mean, std = tf.split(outputs, 2, -1)
        if self._distribution == "normal":
            share = tf.sigmoid(std + 2.0)
            std = self._min_std + (self._max_std - self._min_std) * share
            return ClippedNormal(tf.tanh(mean), std)
        mean = self._mean_scale * tf.tanh(mean / self._mean_scale)
        std = tf.nn.softplus(std + self._raw_init_std) + self._min_std
        return TanhNormal(mean, std)
