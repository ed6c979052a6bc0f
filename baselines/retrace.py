"""Retrace(lambda) (Munos et al., arXiv 1606.02647) along replayed sequences."""

from __future__ import annotations

import tensorflow as tf

from dreamer.ops.shapes import check_shape


def retrace(
    reward: tf.Tensor, pcont: tf.Tensor, is_first: tf.Tensor, q: tf.Tensor, value: tf.Tensor,
    trace: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:  # fmt: skip
    """Targets of Q(x_t, a_t), where a_t is the action taken in x_t, so the one of timestep t + 1.

        G_t = r_(t+1) + pcont_(t+1) (v_(t+1) + c_(t+1) (G_(t+1) - q_(t+1))),   t = T-2 .. 0
        c_(T-1) = 0, and c_t = 0 where timestep t is its episode's last

    with v_t = E over pi of Q(x_t, .), q_t = Q(x_t, a_t), and everywhere else
    c_t = lambda min(1, pi(a_t|x_t) / mu(a_t|x_t)). lambda = 0 gives one-step targets. On-policy,
    with lambda = 1 and q_t = v_t, this is the return up to the end of the sequence, closed by v.
    At a terminal pcont is 0; at a time limit, where it is not, v of the last timestep closes.

    Args:
        reward: float32 [B, T], r_t received on arriving at timestep t.
        pcont: float32 [B, T], gamma * cont.
        is_first: bool [B, T]; the timestep before such a one is its episode's last.
        q: float32 [B, T-1], q_0..q_(T-2).
        value: float32 [B, T].
        trace: float32 [B, T-1], lambda min(1, pi / mu) of a_0..a_(T-2).
    Returns:
        float32 [B, T-1] targets, and their weights: 0 if timestep t is an episode's last, else 1.
    Raises:
        ValueError: On differing shapes, or fewer than two timesteps.
    """
    check_shape("reward", reward, (None, None))
    b, length = reward.shape
    if length < 2:
        raise ValueError(f"retrace needs sequences of at least 2 timesteps, but got {length}")
    for name, tensor in (("pcont", pcont), ("is_first", is_first), ("value", value)):
        check_shape(name, tensor, (b, length))
    for name, tensor in (("q", q), ("trace", trace)):
        check_shape(name, tensor, (b, length - 1))
    going = 1.0 - tf.cast(is_first[:, 1:], tf.float32)  # timestep t + 1 follows timestep t
    carried, targets = tf.zeros_like(reward[:, 0]), []  # c_(t+1) (G_(t+1) - q_(t+1))
    for t in reversed(range(length - 1)):
        target = reward[:, t + 1] + pcont[:, t + 1] * (value[:, t + 1] + carried)
        carried = going[:, t] * trace[:, t] * (target - q[:, t])
        targets.append(target)
    return tf.stack(targets[::-1], 1), going
