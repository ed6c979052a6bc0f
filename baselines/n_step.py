"""n-step returns of a stream of timesteps, in which episodes end and begin."""

from __future__ import annotations

import tensorflow as tf

from dreamer.ops.shapes import check_shape


def n_step_returns(
    reward: tf.Tensor, cont: tf.Tensor, is_last: tf.Tensor, value: tf.Tensor, gamma: float
) -> tf.Tensor:
    """What follows each timestep: rewards up to its episode's or the stream's end, then a value.

        R_t = cont_t v_t             where timestep t is its episode's last, and for t = T
        R_t = r_(t+1) + gamma R_(t+1)         everywhere else, t = T-1 .. 0

    So a terminal (cont 0) is worth nothing, and at a time limit (cont 1) the value of the last
    timestep counts (arXiv 1602.01783, algorithm S3, whose R is that at terminals and at t_max).

    Args:
        reward: float32 [T+1, N], r_t received on arriving at timestep t.
        cont: float32 [T+1, N].
        is_last: bool [T+1, N].
        value: float32 [T+1, N], v_t.
        gamma: Discount of a step.
    Returns:
        float32 [T, N], R_0..R_(T-1); without meaning where timestep t is an episode's last.
    Raises:
        ValueError: On differing shapes.
    """
    for name, tensor in (("cont", cont), ("is_last", is_last), ("value", value)):
        check_shape(name, tensor, tuple(reward.shape))
    ended = cont * value
    following, returns = ended[-1], []
    for t in reversed(range(reward.shape[0] - 1)):
        following = tf.where(is_last[t], ended[t], reward[t + 1] + gamma * following)
        returns.append(following)
    return tf.stack(returns[::-1])
