"""Actor network (arXiv 1912.01603, section 3 and appendix A)."""

from __future__ import annotations

import tensorflow as tf

from dreamer.errors import UserError
from dreamer.nets.layers import MLP
from dreamer.ops.distributions import (
    StraightThroughOneHot,
    TanhNormal,
    inverse_softplus,
    mix_uniform,
)


class Actor(MLP):
    """Maps features to a distribution over actions.

    ``tanh_normal``, continuous actions: Normal(c tanh(m / c), softplus(s + inverse_softplus(
    init_std)) + min_std) squashed by tanh, where c is `mean_scale`. ``onehot``, one-hot actions:
    categorical with straight-through gradients.

    Args:
        actions: A.
        discrete: Whether actions are one-hot.
        layers: Hidden layers.
        units: Their width.
        mean_scale: Bound on the mean before squashing; 5 in the paper.
        init_std: Standard deviation at the start, before squashing.
        min_std: Added to the standard deviation.
        distribution: "tanh_normal" or "onehot", or "auto" for the one that fits.
        unimix: Share of the uniform distribution in a onehot.
        mode_samples: Samples of a tanh_normal; the densest one counts as its mode.
    Raises:
        UserError: The distribution does not fit the actions.

    Input shape: float32 [N, F]. `dist` returns a distribution: batch shape [N], events [A].
    """

    def __init__(
        self, actions: int, discrete: bool, *, layers: int, units: int, mean_scale: float,
        init_std: float, min_std: float, distribution: str = "auto", mode_samples: int = 100,
        unimix: float = 0.0, **kwargs,
    ):  # fmt: skip
        super().__init__(layers, units, actions if discrete else 2 * actions, **kwargs)
        if distribution not in ("auto", "onehot" if discrete else "tanh_normal"):
            raise UserError(
                f"actor.distribution {distribution} does not fit the "
                f"{'one-hot' if discrete else 'continuous'} actions of this task; leave it at auto"
            )
        self.actions, self.mode_samples, self._discrete = actions, mode_samples, discrete
        self._mean_scale, self._min_std, self._unimix = mean_scale, min_std, unimix
        self._raw_init_std = inverse_softplus(init_std)

    def dist(self, feat: tf.Tensor) -> TanhNormal | StraightThroughOneHot:
        """The policy at features [N, F]."""
        outputs = self(feat)
        if self._discrete:
            return StraightThroughOneHot(mix_uniform(outputs, self._unimix))
        mean, std = tf.split(outputs, 2, -1)
        mean = self._mean_scale * tf.tanh(mean / self._mean_scale)
        std = tf.nn.softplus(std + self._raw_init_std) + self._min_std
        return TanhNormal(mean, std)
