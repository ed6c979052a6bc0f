"""Means, sums and noise of a whole batch whose sequences are shared among devices.

Within ``tf.distribute.Strategy.run`` each of R replicas has B / R sequences of the batch, in order.
The functions here return what one device with the whole batch would compute. With one replica they
change nothing. A replica's gradients are those of the mean over its own share; their mean over the
replicas is the gradient of the mean over the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def replicas() -> int:
    """R, the number of devices that share the batch; 1 outside of ``Strategy.run``."""
    return tf.distribute.get_replica_context().num_replicas_in_sync


def batch_normal(shape: Sequence[int], seed: tf.Tensor, axis: int) -> tf.Tensor:
    """Standard Normal noise that follows the rows of the batch, whichever device has them.

    Args:
        shape: The shape on this replica.
        seed: Stateless seed, int32 [2].
        axis: The axis that is shared: the batch's sequences, or rows made from them in order.
    Returns:
        float32 [*shape], this replica's rows of the noise that one device would draw.
    """
    count = replicas()
    if count == 1:
        return tf.random.stateless_normal(shape, seed)
    whole, begin = list(shape), [0] * len(shape)
    whole[axis] *= count
    index = tf.distribute.get_replica_context().replica_id_in_sync_group
    begin[axis] = index * shape[axis]
    return tf.slice(tf.random.stateless_normal(whole, seed), begin, shape)


def average(local: tf.Tensor) -> tf.Tensor:
    """Mean over the batch, from this replica's mean over its share.

    Use this before a function that is not linear. The gradient is the local mean's.
    """
    if replicas() == 1:
        return local
    return _passed_on(averaged(tf.stop_gradient(local)), local)


def total(local: tf.Tensor) -> tf.Tensor:
    """Sum over the batch, from this replica's sum over its share; for gradients see `average`."""
    count = replicas()
    return local if count == 1 else average(local) * count


def gather(local: tf.Tensor) -> tf.Tensor:
    """The rows [n, ...] of all replicas in order: [R n, ...], differentiable."""
    count = replicas()
    if count == 1:
        return local
    every = tf.distribute.get_replica_context().all_gather(local, axis=0)
    return tf.ensure_shape(every, [count * local.shape[0], *local.shape[1:]])


def averaged(found: Any) -> Any:
    """Mean over the replicas of every tensor in a nest."""
    if replicas() == 1:
        return found
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, found)


def apply_optimizer(optimizer: Any, gradients: list[tf.Tensor], variables: list) -> None:
    """One step of an Adam or LaProp, on every device's copy of the variables.

    Call it on one device, or outside of ``Strategy.run`` with averaged gradients.
    """
    rate = tf.convert_to_tensor(optimizer.learning_rate)
    count = tf.cast(optimizer.iterations + 1, tf.float32)
    for gradient, variable in zip(gradients, variables, strict=True):
        if tf.distribute.in_cross_replica_context():
            extended, args = tf.distribute.get_strategy().extended, (gradient, rate, count)
            extended.update(variable.value, optimizer.step, args=args, group=False)
        else:
            optimizer.step(variable.value, gradient, rate, count)
    optimizer.iterations.assign_add(1)


def shrink(share: float, variables: Sequence) -> None:
    """Takes a share off variables: w <- (1 - share) w."""

    def shrunk(variable: tf.Variable) -> None:
        variable.assign((1.0 - share) * variable)

    for variable in variables:
        if tf.distribute.has_strategy() and tf.distribute.in_cross_replica_context():
            tf.distribute.get_strategy().extended.update(variable.value, shrunk, group=False)
        else:
            shrunk(variable)


def follow(rate: float | tf.Tensor, sources: Sequence, targets: Sequence) -> None:
    """Moves each target variable towards its source: t <- (1 - rate) t + rate s."""

    def move(target: tf.Variable, source: tf.Tensor, rate: Any) -> None:
        moved = target + rate * (source - target)
        target.assign(tf.where(tf.equal(rate, 1.0), source, moved))  # exact at 1, unlike `moved`

    for source, target in zip(sources, targets, strict=True):
        if tf.distribute.has_strategy() and tf.distribute.in_cross_replica_context():
            extended = tf.distribute.get_strategy().extended
            extended.update(target.value, move, args=(source.value, rate), group=False)
        else:
            move(target, tf.convert_to_tensor(source), rate)


@tf.custom_gradient
def _passed_on(value: tf.Tensor, local: tf.Tensor):
    """`value`, with the gradient going to `local`."""
    return tf.identity(value), lambda upstream: (tf.zeros_like(value), upstream)
