"""Affine maps that share their weights over many steps, and one large product for the gradient.

To differentiate an unrolled loop, TensorFlow makes one small product a step for each matrix of
weights, and adds them up. `JointGradients` joins the steps first, as recurrent libraries do:

    y_t = x_t W + b      dW = sum x_t^T dy_t = [x_1; x_2; ..]^T [dy_1; dy_2; ..]      db = sum dy_t
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

from dreamer.ops.shapes import flatten_leading

_joint: ContextVar[JointGradients | None] = ContextVar("joint", default=None)


def affine(
    x: tf.Tensor, kernel: Any, bias: Any = None, compute_dtype: str = "float32",
    dtype: str = "float32",
) -> tf.Tensor:  # fmt: skip
    """x W + b: [..., inputs] -> [..., units].

    Args:
        x: The input.
        kernel: W, [inputs, units]; or [G, inputs, units] for an input [G, N, inputs].
        bias: b, [units]; None: zeros.
        compute_dtype: Of the product.
        dtype: Of the sum and the result.
    """
    joint, x = _joint.get(), tf.cast(x, compute_dtype)
    if joint is not None:
        return joint.apply(x, kernel, bias, dtype)
    return _apply(x, dtype, *_cast(kernel, bias, compute_dtype, dtype))


def _cast(kernel: Any, bias: Any, compute_dtype: Any, dtype: Any) -> list[tf.Tensor]:
    return [tf.cast(kernel, compute_dtype), *([] if bias is None else [tf.cast(bias, dtype)])]


def _apply(x: tf.Tensor, dtype: Any, kernel: tf.Tensor, *bias: tf.Tensor) -> tf.Tensor:
    y = tf.cast(x @ kernel, dtype)
    return y + bias[0] if bias else y


class JointGradients:
    """A context in which weights of `affine` have no gradients by the tape, but by `gradient`.

    Weights are read and cast once, and told apart by identity. So a part of a variable is to be
    cut out before a loop, not within it.

    Args:
        tape: Persistent; it records what happens in this context.
    """

    def __init__(self, tape: tf.GradientTape):
        self._tape, self._uses = tape, dict[tuple, _Uses]()

    def __enter__(self) -> JointGradients:
        self._token = _joint.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _joint.reset(self._token)

    def apply(self, x: tf.Tensor, kernel: Any, bias: Any, dtype: str) -> tf.Tensor:
        """`affine` of an input in the compute dtype."""
        key = id(kernel), id(bias), x.dtype, dtype
        if key not in self._uses:
            self._uses[key] = _Uses(kernel, bias, x.dtype, dtype)
        return self._uses[key].apply(x, self._tape)

    def gradient(self, loss: tf.Tensor, variables: Sequence) -> list[tf.Tensor | None]:
        """Gradients as the tape's own: of a loss [] by variables that `affine` uses, or others."""
        every = list(self._uses.values())
        outputs = [uses.outputs for uses in every]
        direct, upstream = self._tape.gradient(loss, (list(variables), outputs))
        weights, gradients = list[tf.Tensor](), list[tf.Tensor]()
        for uses, found in zip(every, upstream, strict=True):
            if any(dy is not None for dy in found):
                weights += uses.weights
                gradients += uses.gradients(found)
        if not weights:
            return direct
        joint = self._tape.gradient(weights, list(variables), gradients)
        pairs = zip(direct, joint, strict=True)
        return [b if a is None else a if b is None else a + b for a, b in pairs]


class _Uses:
    """The uses of a kernel, and perhaps a bias."""

    def __init__(self, kernel: Any, bias: Any, compute_dtype: Any, dtype: Any):
        self._dtype = dtype
        self._given = kernel, bias  # kept, so that no other objects get their identities
        self.weights = _cast(kernel, bias, compute_dtype, dtype)
        self._stopped = [tf.stop_gradient(weight) for weight in self.weights]
        self.inputs, self.outputs = list[tf.Tensor](), list[tf.Tensor]()

    def apply(self, x: tf.Tensor, tape: tf.GradientTape) -> tf.Tensor:
        y = _apply(x, self._dtype, *self._stopped)
        tape.watch(y)  # no variable may lead to it
        self.inputs.append(x)
        self.outputs.append(y)
        return y

    def gradients(self, upstream: Sequence[tf.Tensor | None]) -> list[tf.Tensor]:
        """Gradients of the weights, from those of the outputs."""
        pairs = [(x, dy) for x, dy in zip(self.inputs, upstream, strict=True) if dy is not None]
        x, dy = (self._join(tensors) for tensors in zip(*pairs, strict=True))
        by_kernel = tf.matmul(x, tf.cast(dy, x.dtype), transpose_a=True)
        if len(self.weights) == 1:
            return [by_kernel]
        bias = self.weights[1]
        by_bias = tf.reduce_sum(tf.cast(dy, tf.float32), range(dy.shape.rank - 1))
        return [by_kernel, tf.cast(by_bias, bias.dtype)]

    def _join(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """Rows of all uses, [n, size] or [G, n, size]."""
        keep = self.weights[0].shape.rank
        rows = [flatten_leading(x) if keep == 2 else x for x in tensors]
        return tf.concat(rows, -2)


@contextlib.contextmanager
def without_joint_gradients() -> Iterator[None]:
    """A context in which weights of `affine` have gradients by the tape, even if in another one."""
    token = _joint.set(None)
    try:
        yield
    finally:
        _joint.reset(token)
