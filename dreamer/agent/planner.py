"""Planning by the cross-entropy method (PlaNet, arXiv 1811.04551, algorithm 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import tensorflow as tf

from dreamer.ops.distributions import largest

# Actions [N, K, H, A] and a stateless seed, int32 [2] -> their returns [N, K].
Judge = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def plan(
    judge: Judge, shape: tuple[int, int, int], seed: tf.Tensor, *, discrete: bool,
    candidates: int, num_elites: int, iterations: int, parts: Sequence[int] = (),
) -> tf.Tensor:  # fmt: skip
    """Searches for the action sequences of the highest returns.

    Continuous: candidates are Normal(mean, std), clipped to [-1, 1], from Normal(0, 1); mean and
    std (of the population) become those of the `num_elites` best. One-hot: candidates are
    categorical, from uniform probabilities, which become the frequencies among the best; the most
    frequent action is returned. (PlaNet plans continuous actions only; the method for
    one-hot actions is ours.)

    Candidates whose return is not finite are ignored. Fewer than `num_elites` may then count; if
    none counts, the distribution stays as it was.

    Args:
        judge: Estimates returns with the model; each iteration has a new seed.
        shape: N, H, A.
        seed: int32 [2], stateless seed.
        discrete: Whether actions are one-hot.
        candidates: K.
        num_elites: Number of best candidates that the next distribution is fitted to.
        iterations: Number of iterations.
        parts: Sizes of the one-hot vectors of an action, if it has several.
    Returns:
        The means (one-hot: the modes) of the last distribution, float32 [N, H, A].
    """
    sizes = list(parts) or shape[-1:]
    draw = partial(_draw_onehot, sizes) if discrete else _draw_normal

    def improve(i: tf.Tensor, mean: tf.Tensor, std: tf.Tensor) -> tuple[tf.Tensor, ...]:
        folded = tf.random.experimental.stateless_fold_in(seed, i)
        drawing, judging = tf.unstack(tf.random.split(folded, 2))
        actions = draw(mean, std, candidates, drawing)  # [N, K, H, A]
        returns = judge(actions, judging)
        judged = tf.where(tf.math.is_finite(returns), returns, -float("inf"))
        best, index = tf.math.top_k(judged, num_elites)  # [N, num_elites]
        elite = tf.gather(actions, index, batch_dims=1)  # [N, num_elites, H, A]
        share = tf.cast(tf.math.is_finite(best), tf.float32)
        count = tf.reduce_sum(share, 1, keepdims=True)
        share = (share / tf.maximum(count, 1.0))[..., None, None]  # sums to 1, or 0 if none counts
        keep = (count == 0.0)[..., None]  # [N, 1, 1]
        fitted = tf.reduce_sum(share * elite, 1)
        variance = tf.reduce_sum(share * tf.math.squared_difference(elite, fitted[:, None]), 1)
        return i + 1, tf.where(keep, mean, fitted), tf.where(keep, std, tf.sqrt(variance))

    zeros = tf.zeros(shape)
    uniform = zeros + [1.0 / size for size in sizes for _ in range(size)]
    start = tf.constant(0), uniform if discrete else zeros, zeros + 1.0
    _, best, _ = tf.while_loop(lambda i, *_: i < iterations, improve, start)
    return largest(best, sizes) if discrete else best


def _draw_normal(mean: tf.Tensor, std: tf.Tensor, count: int, seed: tf.Tensor) -> tf.Tensor:
    n, h, a = mean.shape
    noise = tf.random.stateless_normal([n, count, h, a], seed)
    return tf.clip_by_value(mean[:, None] + std[:, None] * noise, -1.0, 1.0)


def _draw_onehot(
    sizes: Sequence[int], probs: tf.Tensor, _: tf.Tensor, count: int, seed: tf.Tensor
) -> tf.Tensor:
    n, h, a = probs.shape
    uniform = tf.random.stateless_uniform([n, count, h, a], seed, minval=1e-6, maxval=1.0 - 1e-6)
    gumbel = -tf.math.log(-tf.math.log(uniform))
    return largest(tf.math.log(probs)[:, None] + gumbel, sizes)
