"""Behaviour learnt in imagination: actor and value losses (arXiv 1912.01603, section 3)."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from dreamer.nets.actor import Actor
from dreamer.nets.discount import Discount
from dreamer.nets.reward import Reward
from dreamer.nets.rssm import RSSM, State
from dreamer.nets.value import Value
from dreamer.ops.distributions import unit_normal_log_prob
from dreamer.ops.returns import lambda_returns, trajectory_weights
from dreamer.ops.shapes import over_leading


class Imagination(NamedTuple):
    """Imagined trajectories; the start is not among the features."""

    feat: tf.Tensor  # [N, H, F], f_1..f_H
    action: tf.Tensor  # [N, H, A], a_0..a_(H-1): action i led to feature i + 1
    log_prob: tf.Tensor  # [N, H], of the actions


class BehaviorLosses(NamedTuple):
    """Losses of a batch of imagined trajectories, and scalar metrics."""

    actor: tf.Tensor  # []
    value: tf.Tensor  # []
    metrics: dict[str, tf.Tensor]


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
    feats, actions, log_probs = [], [], []
    for step in range(latent_noise.shape[0]):
        policy = actor.dist(tf.stop_gradient(rssm.feat(state)))
        action, log_prob = policy.from_noise(action_noise[step])
        state = rssm.imagine_step(state, action, latent_noise[step])
        feats.append(rssm.feat(state))
        actions.append(action)
        log_probs.append(log_prob)
    return Imagination(tf.stack(feats, 1), tf.stack(actions, 1), tf.stack(log_probs, 1))


def behavior_losses(
    trajectory: Imagination,
    reward: Reward,
    value: Value,
    discount: Discount | None,
    *,
    gamma: float,
    lambda_: float,
) -> BehaviorLosses:
    """Actor and value loss on imagined trajectories.

        actor loss = - mean weight_i V_i
        value loss = - mean weight_i log Normal(stop(V_i) | v_i, 1)     over N and i = 1..H-1

    The actor loss is to be differentiated by the actor's variables, the value loss by the value
    network's, each alone: then one pass of the value network serves both, as what reaches its
    variables from the value loss does not depend on where the features came from. V and the
    weights are those of dreamer.ops.returns; pcont is gamma, or the discount head's mean, which
    has learnt gamma * cont.

    Args:
        trajectory: Features [N, H, F].
        reward, value, discount: The heads; discount may be None.
        gamma: Discount factor.
        lambda_: Mixture weight of the returns.
    """
    rewards = over_leading(reward, trajectory.feat)  # [N, H]
    values = over_leading(value, trajectory.feat)  # [N, H]
    pcont = over_leading(discount, trajectory.feat) if discount else gamma * tf.ones_like(rewards)
    returns = lambda_returns(rewards, values, pcont, lambda_)  # [N, H-1]
    weight = trajectory_weights(pcont)[:, :-1]  # [N, H-1]
    targets = tf.stop_gradient(returns)
    log_prob = unit_normal_log_prob(targets, values[:, :-1], 0)
    actor_loss = -tf.reduce_mean(weight * returns)
    value_loss = -tf.reduce_mean(weight * log_prob)
    metrics = {
        "actor_loss": actor_loss,
        "value_loss": value_loss,
        "actor_entropy": -tf.reduce_mean(trajectory.log_prob),
        "imagined_reward": tf.reduce_mean(rewards),
        "imagined_value": tf.reduce_mean(values),
        "imagined_return": tf.reduce_mean(returns),
        "value_error": tf.sqrt(
            tf.reduce_mean(tf.math.squared_difference(targets, values[:, :-1]))
        ),
    }
    return BehaviorLosses(actor_loss, value_loss, metrics)
