"""Actor network (arXiv 1912.01603, section 3 and appendix A)."""

from __future__ import annotations

import tensorflow as tf

from dreamer.errors import UserError
from dreamer.nets.layers import MLP
from dreamer.ops.distributions import StraightThroughOneHot, TanhNormal, inverse_softplus


def choose_distribution(asked: str, discrete: bool) -> str:
    """Resolves ``auto``: onehot for one-hot actions, tanh_normal for continuous ones.

    Raises:
        UserError: The distribution does not fit the actions.
    """
    fitting = "onehot" if discrete else "tanh_normal"
    if asked in ("auto", fitting):
        return fitting
    kind = "one-hot" if discrete else "continuous"
    raise UserError(
        f"actor.distribution {asked} does not fit the {kind} actions of this task; leave it at auto"
    )


def check_gradient(gradient: str, discrete: bool) -> None:
    """Raises UserError for the score-function gradient with continuous actions."""
    if gradient == "score" and not discrete:
        raise UserError(
            "actor.gradient is score, which is for one-hot actions, but the actions of this task "
            "are continuous; leave it at dynamics"
        )


class Actor(MLP):
    """Maps features to a distribution over actions.

    ``tanh_normal``: Normal(5 tanh(m/5), softplus(s + inverse_softplus(5)) + 1e-4) squashed by
    tanh. ``onehot``: categorical with straight-through gradients.

    Args:
        actions: A.
        distribution: "tanh_normal" or "onehot".
        layers: Hidden layers.
        units: Their width.
        mean_scale: Bound on the mean before squashing; 5 in the paper.
        init_std: Standard deviation at the start, before squashing.
        min_std: Added to the standard deviation.

    Input shape: float32 [N, F]. Output: distribution with batch shape [N], events [A].
    """

    def __init__(
        self,
        actions: int,
        *,
        distribution: str,
        layers: int,
        units: int,
        mean_scale: float,
        init_std: float,
        min_std: float,
        **kwargs,
    ):
        outputs = 2 * actions if distribution == "tanh_normal" else actions
        super().__init__(layers, units, outputs, **kwargs)
        self._distribution, self.actions = distribution, actions
        self._mean_scale, self._min_std = mean_scale, min_std
        self._raw_init_std = inverse_softplus(init_std)

    def dist(self, feat: tf.Tensor) -> TanhNormal | StraightThroughOneHot:
        """The policy at features [N, F]."""
        outputs = self(feat)
        if self._distribution == "onehot":
            return StraightThroughOneHot(outputs)
        mean, std = tf.split(outputs, 2, -1)
        mean = self._mean_scale * tf.tanh(mean / self._mean_scale)
        std = tf.nn.softplus(std + self._raw_init_std) + self._min_std
        return TanhNormal(mean, std)
