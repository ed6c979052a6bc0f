"""State head of the contrastive objective (arXiv 1912.01603, section 4)."""

from __future__ import annotations

import tensorflow as tf

from dreamer.nets.layers import MLP
from dreamer.ops.distributions import inverse_softplus


class Contrastive(MLP):
    """Predicts from an embedding which state it belongs to, as a diagonal Normal over features.

    std = min_std + softplus(x + c), the constant c chosen so that x = 0 gives init_std.

    Args:
        size: F.
        layers: Hidden layers.
        units: Their width.
        init_std: Standard deviations at the start, above min_std.
        min_std: Least standard deviation.
    Raises:
        ValueError: If init_std is not above min_std.

    Input shape: [N, E]. Output: means and standard deviations, float32 [N, F] each.
    """

    def __init__(
        self, size: int, *, layers: int, units: int, init_std: float, min_std: float, **kwargs
    ):
        super().__init__(layers, units, 2 * size, **kwargs)
        if init_std <= min_std:
            raise ValueError(f"init_std should be above min_std, {min_std}, but is {init_std}")
        self._offset, self._min_std = inverse_softplus(init_std - min_std), min_std

    def call(self, embed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        mean, std = tf.split(super().call(embed), 2, -1)
        return mean, self._min_std + tf.nn.softplus(std + self._offset)
