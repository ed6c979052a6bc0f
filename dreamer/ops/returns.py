"""Returns of imagined trajectories (arXiv 1912.01603, equations 4 to 8)."""

from __future__ import annotations

import tensorflow as tf

from dreamer.ops.shapes import check_shape


def lambda_returns(
    reward: tf.Tensor, value: tf.Tensor, pcont: tf.Tensor, lambda_: float,
    known: tf.Tensor | None = None,
) -> tf.Tensor:  # fmt: skip
    """Exponentially weighted mixture of k-step returns along each imagined trajectory.

        V_i = r_i + pcont_i * ((1 - lambda) v_(i+1) + lambda V_(i+1)),  i = 1..H-1,  V_H = v_H

    r_i is the reward received on arriving at state i, so V_i includes the reward of its own state.
    This is the paper's equation 6 in recursive form, with the bootstrap of the TF2 release.
    lambda=0 gives one-step targets, lambda=1 the discounted reward sum closed by v_H.

    Args:
        reward: float32 [N, H], r_1..r_H; r_H is not used.
        value: float32 [N, H], v_1..v_H.
        pcont: float32 [N, H], factor from state i to i+1; pcont_H is not used.
        lambda_: Mixture weight in [0, 1].
        known: bool [N, H-1]; where it is False, V_i = v_i instead.
    Returns:
        float32 [N, H-1], V_1..V_(H-1).
    Raises:
        ValueError: On differing shapes or a horizon below 2.
    """
    check_shape("value", value, (None, None))
    n, horizon = value.shape
    check_shape("reward", reward, (n, horizon))
    check_shape("pcont", pcont, (n, horizon))
    if horizon < 2:
        raise ValueError(f"lambda_returns needs a horizon of at least 2, but got {horizon}")
    rewards, values = tf.unstack(reward, axis=1), tf.unstack(value, axis=1)
    factors, bootstraps = tf.unstack(pcont, axis=1), tf.unstack((1.0 - lambda_) * value, axis=1)
    following, returns = values[-1], []
    for i in reversed(range(horizon - 1)):
        mixed = bootstraps[i + 1] + lambda_ * following
        following = rewards[i] + factors[i] * mixed
        if known is not None:
            following = tf.where(known[:, i], following, values[i])
        returns.append(following)
    return tf.stack(returns[::-1], axis=1)  # [N, H-1]


def reward_sums(reward: tf.Tensor, pcont: tf.Tensor) -> tf.Tensor:
    """Sums of the rewards to come within the horizon, for behaviour without a value network.

        R_i = r_i + pcont_i R_(i+1),  i = 1..H,  R_(H+1) = 0

    So R_1 = sum weight_i r_i with the weights of `trajectory_weights`, but with their gradient.
    With pcont = 1 it is the paper's equation 4.

    Args:
        reward: float32 [N, H], r_1..r_H.
        pcont: float32 [N, H], factor from state i to i+1; pcont_H is not used.
    Returns:
        float32 [N, H], R_1..R_H.
    """
    rewards, factors = tf.unstack(reward, axis=1), tf.unstack(pcont, axis=1)
    sums = [rewards[-1]]
    for r, factor in zip(rewards[-2::-1], factors[-2::-1], strict=True):
        sums.append(r + factor * sums[-1])
    return tf.stack(sums[::-1], axis=1)


def replayed_returns(
    reward: tf.Tensor, value: tf.Tensor, pcont: tf.Tensor, is_first: tf.Tensor, lambda_: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """`lambda_returns` along replayed sequences, in which new episodes may begin.

    Where timestep t + 1 begins another episode, the state after t is unknown: there V_t = v_t,
    which serves as a bootstrap and is not a target. (At a true terminal pcont_t = 0, so the state
    after it does not matter: V_t = r_t stays a target.)

    Args:
        reward, value, pcont: float32 [B, T]; pcont is gamma * cont.
        is_first: bool [B, T].
        lambda_: Mixture weight in [0, 1].
    Returns:
        V_1..V_(T-1), float32 [B, T-1], and 1 where it is a target, else 0, float32 [B, T-1].
    """
    known = tf.logical_or(~is_first[:, 1:], pcont[:, :-1] == 0.0)  # [B, T-1]
    return lambda_returns(reward, value, pcont, lambda_, known), tf.cast(known, tf.float32)


def trajectory_weights(pcont: tf.Tensor) -> tf.Tensor:
    """Discounted probability that an imagined trajectory reaches each of its states.

        weight_1 = 1,  weight_i = pcont_1 ... pcont_(i-1)

    Args:
        pcont: float32 [N, H].
    Returns:
        float32 [N, H], without gradient.
    """
    return tf.stop_gradient(tf.math.cumprod(pcont, axis=1, exclusive=True))
