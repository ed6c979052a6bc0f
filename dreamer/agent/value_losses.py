"""Losses of a value network: on imagined states, and on replayed sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from dreamer.nets.heads import Value
from dreamer.ops.replicas import average
from dreamer.ops.returns import replayed_returns
from dreamer.ops.scalars import TwoHot, UnitNormal
from dreamer.ops.shapes import over_leading


class Replayed(NamedTuple):
    """Replayed sequences, as a value network learns from them."""

    feat: tf.Tensor  # [B, T, F]
    reward: tf.Tensor  # [B, T], on the scale that is learnt
    cont: tf.Tensor  # [B, T]
    is_first: tf.Tensor  # bool [B, T]


def value_loss(
    values: UnitNormal | TwoHot, returns: tf.Tensor, weight: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Weighted mean of - log p(stop(returns)), and the root mean square of the mean's error.

    All have one shape, [N, M].
    """
    targets = tf.stop_gradient(returns)
    loss = -tf.reduce_mean(weight * values.log_prob(targets))
    error = tf.math.squared_difference(targets, values.mean)
    return loss, tf.sqrt(average(tf.reduce_mean(error)))


def replayed_value_loss(
    replayed: Replayed, value: Value, returns: tf.Tensor | None, gamma: float, lambda_: float,
    slow: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:  # fmt: skip
    """Value loss on replayed sequences (DreamerV3, arXiv 2301.04104v2, section "Critic learning").

    The targets are lambda-returns of the replayed rewards, in which the returns of what the policy
    would do instead, R_t, take the place of values:

        G_t = r_t + gamma cont_t ((1 - lambda) R_(t+1) + lambda G_(t+1)),   t = T-2 .. 0
        G_(T-1) = R_(T-1)

        loss = - mean known_t log p(stop(G_t) | f_t)    over B and t = 0..T-2
               - mean known_t log p(stop(slow v_t) | f_t)     with `slow`, as in Behavior

    known_t is 0 at the last timestep of an episode that a time limit has cut: G_t = R_t there,
    which closes the sums before it and is not a target. DreamerV3 leaves out terminals, too. Its
    values exclude the reward of their own state, so nothing is to be learnt there. Ours include
    it, and G_t = r_t is known.

    The gradient passes through f_t into the world model, unless the caller stops it.

    Args:
        replayed: The sequences.
        value: The network that learns.
        returns: R_t, float32 [B, T]; None for the network's own values.
        gamma: Discount factor.
        lambda_: Mixture weight of the returns.
        slow: Slow copy of the value network that pulls.
    Returns:
        The loss, and the root mean square of the mean's error, [] each.
    """
    feat = replayed.feat
    if returns is None:
        values = value.predict(feat)
        returns, values = values.mean, values.before_last()
    else:
        values = value.predict(feat[:, :-1])
    targets, known = replayed_returns(
        replayed.reward, tf.stop_gradient(returns), gamma * replayed.cont, replayed.is_first,
        lambda_,
    )  # fmt: skip
    loss, error = value_loss(values, targets, known)
    if slow is not None:
        loss += value_loss(values, over_leading(slow, feat[:, :-1]), known)[0]
    return loss, error


def annotate(
    returns: tf.Tensor, chosen: tf.Tensor | None, feat: tf.Tensor,
    value: Callable[[tf.Tensor], tf.Tensor],
) -> tf.Tensor:  # fmt: skip
    """The returns of imagined trajectories at the replayed states that these start from.

    Args:
        returns: float32 [N].
        chosen: int32 [N], places of the starts among the B*T states; None: N = B*T, in order.
        feat: Features of the states, [B, T, F].
        value: Gives the values of states that no trajectory starts from.
    Returns:
        float32 [B, T].
    """
    if chosen is None:
        return tf.reshape(returns, feat.shape[:2])
    values = over_leading(value, tf.stop_gradient(feat))
    flat = tf.tensor_scatter_nd_update(tf.reshape(values, [-1]), chosen[:, None], returns)
    return tf.reshape(flat, feat.shape[:2])
