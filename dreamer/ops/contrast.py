"""The contrastive objective over a batch of sequences (arXiv 1912.01603, section 4)."""

from __future__ import annotations

import math

import tensorflow as tf

from dreamer.ops.shapes import check_shape


def pairwise_log_prob(points: tf.Tensor, mean: tf.Tensor, std: tf.Tensor) -> tf.Tensor:
    """Log density of every point under every one of some diagonal Normals.

    The squares in the exponent are one matrix product:

        sum_k (x_k - m_k)^2 / s_k^2 = [x^2, x] [1/s^2, -2 m/s^2]' + sum_k m_k^2 / s_k^2

    The sum cancels where stds are small, and GPUs round the factors of float32 products to 10 bits,
    so all this is computed in float64: 2 % of a full-size update's operations.

    Args:
        points: float32 [N, F].
        mean, std: float32 [M, F], std positive.
    Returns:
        float32 [N, M], constants included; entry [i, j] is of point i under Normal j.
    """
    check_shape("std", std, mean.shape)
    check_shape("points", points, (None, mean.shape[-1]))
    x, m, s = (tf.cast(tensor, tf.float64) for tensor in (points, mean, std))
    precision = 1.0 / tf.square(s)
    left = tf.concat([tf.square(x), x], -1)
    right = tf.concat([precision, -2.0 * m * precision], -1)
    squares = tf.matmul(left, right, transpose_b=True)  # [N, M]
    squares += tf.reduce_sum(tf.square(m) * precision, -1)
    log_scale = tf.reduce_sum(tf.math.log(s), -1)  # [M]
    constant = 0.5 * x.shape[-1] * math.log(2.0 * math.pi)
    return tf.cast(-0.5 * squares - log_scale - constant, tf.float32)


def contrastive_loss(
    log_prob: tf.Tensor, batch: int, length: int, batch_shifts: int, time_shifts: int
) -> tf.Tensor:
    """Mean of log sum_(j in window of i) exp(log_prob_ij) - log_prob_ii.

    In each row i, its own column i competes with the columns of other sequences and times. These
    are the columns that reach place i if the sequences are rolled by 0 to batch_shifts - 1 places
    and the times by 0 to time_shifts - 1. Shift (0, 0) is column i itself, so the sum includes the
    positive. Hence the loss is never below 0, and it is the log of the window's size for a head
    that cannot tell its entries apart. A window larger than the batch is the whole batch.

    Args:
        log_prob: float32 [B*T, B*T], B-major.
        batch, length: B, T.
        batch_shifts, time_shifts: Size of the window, at least 1 each.
    Returns:
        float32 [].
    """
    check_shape("log_prob", log_prob, (batch * length, batch * length))

    def within(size: int, shifts: int) -> tf.Tensor:
        """bool [size, size]: whether rolling by less than `shifts` brings entry j to place i."""
        places = tf.range(size)
        return tf.math.floormod(places[:, None] - places[None, :], size) < shifts

    sequences = within(batch, batch_shifts)[:, None, :, None]
    times = within(length, time_shifts)[None, :, None, :]
    window = tf.reshape(sequences & times, log_prob.shape)  # [B*T, B*T]
    competing = tf.where(window, log_prob, log_prob.dtype.min)
    return tf.reduce_mean(tf.reduce_logsumexp(competing, 1) - tf.linalg.diag_part(log_prob))
