"""Imagined trajectories, and what judges them (arXiv 1912.01603, section 3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from dreamer.nets.actor import Actor
from dreamer.nets.rssm import RSSM, State
from dreamer.ops.returns import lambda_returns, reward_sums, trajectory_weights
from dreamer.ops.shapes import check_shape, over_leading

Head = Callable[[tf.Tensor], tf.Tensor]  # features [N, F] -> [N]


class Imagination(NamedTuple):
    """Imagined trajectories."""

    start: tf.Tensor  # [N, F], f_0 as the heads know it (RSSM.head_state)
    feat: tf.Tensor  # [N, H, F], f_1..f_H
    action: tf.Tensor  # [N, H, A], a_0..a_(H-1): action i led to feature i + 1
    log_prob: tf.Tensor  # [N, H], of the actions
    entropy: tf.Tensor  # [N, H], of the policy at f_0..f_(H-1)
    cont: tf.Tensor | None = None  # float32 [N], 0 at a terminal start; None: none is terminal


def imagine(
    rssm: RSSM, actor: Actor, start: State, latent_noise: tf.Tensor, action_noise: tf.Tensor
) -> Imagination:
    """Rolls the prior forward under the actor, differentiably.

    For i = 1..H: a_(i-1) is a sample of actor(stop(feat_(i-1))), z_i a sample of the prior.

    Args:
        rssm: The latent dynamics.
        actor: The policy.
        start: States z_0, entries [N, ...], without gradient.
        latent_noise: float32 [H, N, S], standard Normal.
        action_noise: float32 [H, N, A], standard Normal.
    Returns:
        Trajectories of length H.
    """
    state = start
    feats, actions, log_probs, entropies = [rssm.feat(start)], [], [], []
    for step in range(latent_noise.shape[0]):
        policy = actor.dist(tf.stop_gradient(feats[-1]))
        action, log_prob = policy.from_noise(action_noise[step])
        state = rssm.imagine_step(state, action, latent_noise[step])
        feats.append(rssm.feat(state))
        actions.append(action)
        log_probs.append(log_prob)
        entropies.append(policy.entropy(log_prob))
    stacked = (tf.stack(x, 1) for x in (feats[1:], actions, log_probs, entropies))
    return Imagination(feats[0], *stacked)


class Judgement(NamedTuple):
    """What actions are judged by. L = H + 1 where the start is one of the states, else H.

    M = L - 1, or H without a value network.
    """

    returns: tf.Tensor  # [N, M], V or R
    baseline: tf.Tensor | None  # [N, M], values of the same states
    weight: tf.Tensor  # [N, M]
    rewards: tf.Tensor  # [N, L]
    values: tf.Tensor | None  # [N, L]


def judge(
    trajectory: Imagination,
    reward: Head | tf.Tensor,
    value: Head | None,
    discount: Head | None,
    *,
    from_start: bool,
    gamma: float,
    lambda_: float,
) -> Judgement:
    """Returns and weights of the states of imagined trajectories (equations 4 to 6).

    `dreamer.ops.returns` defines both. pcont is gamma, or the discount head's mean, which has
    learnt gamma * cont. A trajectory from a terminal start does not count (`Imagination.cont`):
    all its weights are 0; or, where the start is one of the states, pcont_0 is 0, so V_0 = r_0.
    The TF2 release leaves out the last state of each sequence instead, which is the only state
    that can be terminal where sequences end with their episodes.

    Args:
        trajectory: Features [N, H, F].
        reward: The head, or the rewards r_1..r_H themselves, [N, H].
        value, discount: The heads; either may be None.
        from_start: Whether f_0 is one of the states: i = 0..H, else 1..H.
        gamma: Discount factor.
        lambda_: Mixture weight of the returns.
    Raises:
        ValueError: If rewards are given, but the start's is needed too.
    """
    feat, cont = trajectory.feat, trajectory.cont
    if from_start:
        feat = tf.concat([trajectory.start[:, None], feat], 1)  # [N, L, F], L = H + 1
    rewards = over_leading(reward, feat) if callable(reward) else reward
    check_shape("reward", rewards, feat.shape[:2])
    values = None if value is None else over_leading(value, feat)  # [N, L]
    pcont = over_leading(discount, feat) if discount else gamma * tf.ones_like(rewards)
    if from_start and cont is not None:
        pcont = tf.concat([cont[:, None] * pcont[:, :1], pcont[:, 1:]], 1)
    weight = trajectory_weights(pcont)
    if cont is not None and not from_start:
        weight = cont[:, None] * weight
    if values is None:
        return Judgement(reward_sums(rewards, pcont), None, weight, rewards, None)
    returns = lambda_returns(rewards, values, pcont, lambda_)
    return Judgement(returns, values[:, :-1], weight[:, :-1], rewards, values)
