"""What a batch needs as a whole, where several devices each compute on a share of its sequences.

Within ``tf.distribute.Strategy.run`` every replica has B / R sequences of the batch, in order. The
functions here give it what one device with all of them would have. Outside, where there is one
replica, they change nothing. A replica's gradients are those of the mean over its own share; the
mean of these over the replicas is the gradient of the mean over the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def replicas() -> int:
    """R, how many devices compute on the batch; 1 outside of ``Strategy.run``."""
    return tf.distribute.get_replica_context().num_replicas_in_sync


def batch_normal(shape: Sequence[int], seed: tf.Tensor, axis: int) -> tf.Tensor:
    """Standard Normal noise that belongs to the rows of the batch, whichever device has them.

    Args:
        shape: Of this replica's share.
        seed: Stateless seed, int32 [2].
        axis: The one that is split: it has the batch's sequences, or what was made of them in
            their order.
    Returns:
        float32 [*shape], this replica's rows of the noise that one device would draw.
    """
    count = replicas()
    if count == 1:
        return tf.random.stateless_normal(shape, seed)
    whole, begin = list(shape), [0] * len(shape)
    whole[axis] *= count
    begin[axis] = _index() * shape[axis]
    return tf.slice(tf.random.stateless_normal(whole, seed), begin, shape)


def average(local: tf.Tensor) -> tf.Tensor:
    """Mean over the replicas of a mean over each one's share: the mean over the batch.

    Needed where something that is not linear comes after it. The gradient is the local mean's.
    """
    if replicas() == 1:
        return local
    return _passed_on(_mean(tf.stop_gradient(local)), local)


def total(local: tf.Tensor) -> tf.Tensor:
    """Sum over the replicas of a sum over each one's share, differentiated likewise."""
    count = replicas()
    return local if count == 1 else average(local) * count


def gather(local: tf.Tensor) -> tf.Tensor:
    """Every replica's rows [n, ...], one's after the other's: [R n, ...], differentiable."""
    count = replicas()
    if count == 1:
        return local
    every = tf.distribute.get_replica_context().all_gather(local, axis=0)
    return tf.ensure_shape(every, [count * local.shape[0], *local.shape[1:]])


def averaged(found: Any) -> Any:
    """Mean over the replicas of everything in a nest of tensors, the same on all of them."""
    return found if replicas() == 1 else _mean(found)


def apply_adam(adam: Any, gradients: list[tf.Tensor], variables: list) -> None:
    """One step of a Keras optimizer, on every device's copy of the variables.

    To be called on one device, or from outside of the replicas with gradients that are reduced
    already: Keras's own `apply` works only within them, and sums what each of them brings.
    """
    if not tf.distribute.in_cross_replica_context():
        adam.apply(gradients, variables)
        return
    extended, rate = tf.distribute.get_strategy().extended, tf.convert_to_tensor(adam.learning_rate)

    def step(variable, gradient: tf.Tensor, rate: tf.Tensor) -> None:
        adam.update_step(gradient, variable, rate)

    for gradient, variable in zip(gradients, variables, strict=True):
        extended.update(variable.value, step, args=(gradient, rate), group=False)
    adam.iterations.assign_add(1)


def _index() -> tf.Tensor:
    return tf.distribute.get_replica_context().replica_id_in_sync_group


def _mean(found: Any) -> Any:
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, found)


@tf.custom_gradient
def _passed_on(value: tf.Tensor, local: tf.Tensor):
    """`value`, with the gradient going to `local`."""
    return tf.identity(value), lambda upstream: (tf.zeros_like(value), upstream)
