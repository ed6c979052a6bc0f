"""Value distributions on fixed atoms (arXiv 1707.06887)."""

from __future__ import annotations

import tensorflow as tf

from dreamer.ops.shapes import check_shape


def atoms(low: float, high: float, count: int) -> tf.Tensor:
    """The returns z_0..z_(K-1) that have probabilities: float32 [count], evenly spaced."""
    return tf.linspace(tf.constant(low, tf.float32), tf.constant(high, tf.float32), count)


def project(returns: tf.Tensor, factor: tf.Tensor, probs: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    """The distribution of R + factor * Z, brought to the atoms (arXiv 1707.06887, algorithm 1).

    Atom j's mass goes to x_j = clip(R + factor z_j, z_0, z_(K-1)), and from there to the two atoms
    around it in proportion to its nearness: atom i takes max(0, 1 - |x_j - z_i| / spacing) of it.

    Args:
        returns: float32 [B], R.
        factor: float32 [B], discount of what follows; 0 at a terminal.
        probs: float32 [B, K], of Z.
        z: float32 [K], evenly spaced.
    Returns:
        float32 [B, K], each row summing to what `probs`' does.
    Raises:
        ValueError: On differing shapes.
    """
    check_shape("probs", probs, (None, None))
    b, k = probs.shape
    check_shape("returns", returns, (b,))
    check_shape("factor", factor, (b,))
    check_shape("z", z, (k,))
    moved = tf.clip_by_value(returns[:, None] + factor[:, None] * z, z[0], z[-1])  # [B, K]
    distance = tf.abs(moved[:, None, :] - z[:, None]) / (z[1] - z[0])  # [B, K to, K from]
    share = tf.maximum(0.0, 1.0 - distance)
    return tf.einsum("bij,bj->bi", share, probs)
