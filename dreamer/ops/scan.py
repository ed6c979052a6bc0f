"""Recurrence over time, unrolled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def static_scan(
    step: Callable[[Any, Any], Any], start: Any, inputs: Any, length: int
) -> Any:
    """Applies `step` along the time axis of `inputs` and stacks the states.

    The loop is unrolled into the graph: its length is small and fixed (T or H), and a
    tf.while_loop would keep every intermediate in a TensorList, which costs more than the small
    matrix products in between.

    Args:
        step: (state, input at t) -> next state; all are nests of tensors.
        start: The state before the first step, each tensor [B, ...].
        inputs: Nest of tensors [B, T, ...].
        length: T.
    Returns:
        The nest of states after each step, [B, T, ...].
    """
    sequences = [tf.unstack(x, num=length, axis=1) for x in tf.nest.flatten(inputs)]
    state, states = start, []
    for t in range(length):
        state = step(state, tf.nest.pack_sequence_as(inputs, [x[t] for x in sequences]))
        states.append(state)
    return tf.nest.map_structure(lambda *xs: tf.stack(xs, axis=1), *states)
