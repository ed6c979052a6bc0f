"""Shape checks for public inputs, and the folding of leading axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf


def check_shape(name: str, tensor: tf.Tensor, expected: Sequence[int | None]) -> None:
    """Raises ValueError unless the static shape of `tensor` is compatible with `expected`.

    Args:
        name: What the error message calls the tensor.
        tensor: Any tensor or array with a static rank.
        expected: One entry an axis; None accepts any size.
    """
    shape = tuple(tensor.shape)
    agree = len(shape) == len(expected) and all(
        e is None or s is None or s == e for s, e in zip(shape, expected, strict=True)
    )
    if not agree:
        wanted = "[" + ", ".join("?" if e is None else str(e) for e in expected) + "]"
        raise ValueError(f"{name} should have shape {wanted}, but has {list(shape)}")


def flatten_leading(tensor: tf.Tensor, keep: int = 1) -> tf.Tensor:
    """Folds all axes but the last `keep` into one: [B, T, size] -> [B*T, size]."""
    cut = len(tensor.shape) - keep
    lead, tail = tensor.shape[:cut], tensor.shape[cut:]
    # Beside an axis of width zero, -1 could stand for anything.
    return tf.reshape(tensor, [math.prod(lead) if 0 in tail else -1, *tail])


def over_leading(function: Callable[[tf.Tensor], tf.Tensor], tensor: tf.Tensor) -> tf.Tensor:
    """Applies a function [N, size] -> [N, ...] to the last axis of a tensor [..., size]."""
    output = function(flatten_leading(tensor))
    return tf.reshape(output, [*tensor.shape[:-1], *output.shape[1:]])
