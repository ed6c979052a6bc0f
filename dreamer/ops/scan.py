"""Loops over time: unrolled, or rolled where XLA compiles them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

from dreamer.ops.affine import without_joint_gradients


@contextlib.contextmanager
def rolled_loops(on: bool) -> Iterator[None]:
    """Whether `scan` makes a loop of the graph in this context, and not a copy of each step.

    Without XLA copies are faster, because TensorFlow's loop keeps each intermediate in a list. With
    XLA the step of a loop is compiled once.
    """
    token = _rolled.set(on)
    try:
        yield
    finally:
        _rolled.reset(token)


def scan(step: Callable[[Any, Any], tuple[Any, Any]], state: Any, inputs: Any, axis: int) -> Any:
    """The outputs of all steps of a loop, each [N, T, ...].

    Args:
        step: Takes a state and a step's inputs; returns the next state and the step's outputs.
            All are nests of tensors. The first state may have another structure than the others.
        state: The first state.
        inputs: Tensors whose given axis, 0 or 1, is time.
        axis: That axis.
    """
    length = tf.nest.flatten(inputs)[0].shape[axis]
    if _rolled.get() and length > 2:
        return _rolled_scan(step, state, inputs, axis, length)
    times = [tf.unstack(x, num=length, axis=axis) for x in tf.nest.flatten(inputs)]
    found = []
    for now in zip(*times, strict=True):
        state, outputs = step(state, tf.nest.pack_sequence_as(inputs, now))
        found.append(outputs)
    return tf.nest.map_structure(lambda *steps: tf.stack(steps, 1), *found)


def _rolled_scan(step: Callable, state: Any, inputs: Any, axis: int, length: int) -> Any:
    def at(t: Any) -> Any:
        return tf.nest.map_structure(lambda x: tf.gather(x, t, axis=axis), inputs)

    def body(t: tf.Tensor, state: Any, arrays: Any) -> tuple[tf.Tensor, Any, Any]:
        with without_joint_gradients():
            state, outputs = step(state, at(t))
        return t + 1, state, tf.nest.map_structure(lambda a, y: a.write(t, y), arrays, outputs)

    state, outputs = step(state, at(0))  # by itself, because it tells all structures
    arrays = tf.nest.map_structure(
        lambda y: tf.TensorArray(y.dtype, length, element_shape=y.shape).write(0, y), outputs
    )
    arrays = tf.while_loop(
        lambda t, *_: t < length, body, (tf.constant(1), state, arrays),
        parallel_iterations=1, maximum_iterations=length - 1,
    )[2]  # fmt: skip

    def stacked(array: tf.TensorArray) -> tf.Tensor:
        x = array.stack()
        return tf.transpose(x, [1, 0, *range(2, x.shape.rank)])

    return tf.nest.map_structure(stacked, arrays)


_rolled: ContextVar[bool] = ContextVar("rolled", default=False)
