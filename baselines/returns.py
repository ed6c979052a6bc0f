"""Targets of values: n-step returns, Retrace, and projected value distributions."""

from __future__ import annotations

import tensorflow as tf

from dreamer.ops.shapes import check_shape


def n_step_returns(
    reward: tf.Tensor, cont: tf.Tensor, is_last: tf.Tensor, value: tf.Tensor, gamma: float
) -> tf.Tensor:
    """Sums rewards up to the end of the episode or the stream, and adds the value of that end.

        R_t = cont_t v_t             if timestep t is its episode's last, and for t = T
        R_t = r_(t+1) + gamma R_(t+1)         everywhere else, t = T-1 .. 0

    A terminal (cont 0) is worth nothing; at a time limit (cont 1) the value of the last timestep
    counts (arXiv 1602.01783, algorithm S3, whose R is that at terminals and at t_max).

    Args:
        reward: float32 [T+1, N], r_t received on arriving at timestep t.
        cont, is_last, value: float32, bool and float32 [T+1, N].
        gamma: Discount of a step.
    Returns:
        float32 [T, N], R_0..R_(T-1); those at an episode's last timestep are to be ignored.
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


def retrace(
    reward: tf.Tensor, pcont: tf.Tensor, is_first: tf.Tensor, q: tf.Tensor, value: tf.Tensor,
    trace: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:  # fmt: skip
    """Returns the targets of Q(x_t, a_t) along replayed sequences (Retrace, arXiv 1606.02647).

    a_t is the action taken in x_t, which timestep t + 1 holds.

        G_t = r_(t+1) + pcont_(t+1) (v_(t+1) + c_(t+1) (G_(t+1) - q_(t+1))),   t = T-2 .. 0
        c_(T-1) = 0, and c_t = 0 if timestep t is its episode's last

    with v_t = E over pi of Q(x_t, .), q_t = Q(x_t, a_t), and otherwise
    c_t = lambda min(1, pi(a_t|x_t) / mu(a_t|x_t)). lambda = 0 gives one-step targets. On-policy,
    with lambda = 1 and q_t = v_t, this is the return up to the end of the sequence, closed by v.
    At a terminal pcont is 0; at a time limit it is not, and v of the last timestep closes the sum.

    Args:
        reward: float32 [B, T], r_t received on arriving at timestep t.
        pcont: float32 [B, T], gamma * cont.
        is_first: bool [B, T]; the timestep before a first one is its episode's last.
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


def project(returns: tf.Tensor, factor: tf.Tensor, probs: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    """Projects the distribution of R + factor * Z on the atoms (arXiv 1707.06887, algorithm 1).

    The mass of atom j goes to x_j = clip(R + factor z_j, z_0, z_(K-1)), and from there to the two
    nearest atoms in proportion to nearness: atom i takes max(0, 1 - |x_j - z_i| / spacing) of it.

    Args:
        returns: float32 [B], R.
        factor: float32 [B], the discount of Z; 0 at a terminal.
        probs: float32 [B, K], of Z.
        z: float32 [K], evenly spaced.
    Returns:
        float32 [B, K], each row with the sum of its row of `probs`.
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
