"""Target networks: copies that follow at a distance."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def copy_every(
    period: int, update: tf.Tensor, sources: Sequence[tf.Variable], targets: Sequence[tf.Variable]
) -> None:
    """Makes the targets equal to their sources after update 0, `period`, 2 `period`, ...

    Args:
        period: Updates between copies.
        update: int32, the number of the update just made.
        sources, targets: Pairs, in the same order.
    """

    def copy() -> tf.Tensor:
        follow(1.0, sources, targets)
        return tf.constant(True)

    tf.cond(update % period == 0, copy, lambda: tf.constant(False))


def follow(rate: float, sources: Sequence[tf.Variable], targets: Sequence[tf.Variable]) -> None:
    """Moves each target a part of the way to its source: t <- (1 - rate) t + rate s."""
    for source, target in zip(sources, targets, strict=True):
        value = tf.convert_to_tensor(source)
        target.assign(value if rate == 1.0 else target + rate * (value - target))
