"""Behaviour learnt in imagination: actor and value losses (arXiv 1912.01603, section 3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from dreamer.nets.actor import Actor
from dreamer.nets.rssm import RSSM, State
from dreamer.ops.distributions import unit_normal_log_prob
from dreamer.ops.replicas import average
from dreamer.ops.returns import lambda_returns, reward_sums, trajectory_weights
from dreamer.ops.shapes import check_shape, over_leading

Head = Callable[[tf.Tensor], tf.Tensor]  # features [N, F] -> [N]


class Imagination(NamedTuple):
    """Imagined trajectories.

    `goes_on` is 0 where the start is known to be terminal, else 1: what is imagined from there does
    not count. None where all go on.
    """

    start: tf.Tensor  # [N, F], f_0 as the heads know it (RSSM.explaining)
    feat: tf.Tensor  # [N, H, F], f_1..f_H
    action: tf.Tensor  # [N, H, A], a_0..a_(H-1): action i led to feature i + 1
    log_prob: tf.Tensor  # [N, H], of the actions
    entropy: tf.Tensor  # [N, H], of the policy at f_0..f_(H-1)
    goes_on: tf.Tensor | None = None  # float32 [N]


class BehaviorLosses(NamedTuple):
    """Losses of a batch of imagined trajectories, and scalar metrics."""

    actor: tf.Tensor  # []
    value: tf.Tensor | None  # [], None where there is no value network
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


def behavior_losses(
    trajectory: Imagination,
    reward: Head | tf.Tensor,
    value: Head | None,
    discount: Head | None,
    *,
    gamma: float,
    lambda_: float,
    gradient: str = "dynamics",
    entropy: float = 0.0,
) -> BehaviorLosses:
    """Actor and value loss on imagined trajectories.

        actor loss = - mean weight_i V_i                                 over N and i = 1..H-1
        value loss = - mean weight_i log Normal(stop(V_i) | v_i, 1)     over N and i = 1..H-1

    The actor loss is to be differentiated by the actor's variables, the value loss by the value
    network's, each alone: then one pass of the value network serves both, as what reaches its
    variables from the value loss does not depend on where the features came from. V and the
    weights are those of dreamer.ops.returns; pcont is gamma, or the discount head's mean, which
    has learnt gamma * cont.

    With ``gradient`` "score" nothing is differentiated through the dynamics (REINFORCE with the
    value as baseline). The start z_0 is then one of the states, as its action counts too, and
    weight_0 = 1, weight_i = pcont_0 ... pcont_(i-1):

        actor loss = - mean weight_i log pi(a_i) stop(V_i - v_i)         over N and i = 0..H-1

    Its expectation is the gradient of E[V_0] / H, exactly so with lambda_ = 1 or where v is the
    policy's value. So it is with a horizon of one step, whichever the gradient: V_1 = v_1 has no
    target, but V_0 = r_0 + pcont_0 v_1 has, as in the paper, whose sums begin at the start.

    What is imagined from a terminal start does not count (`Imagination.goes_on`): all weights are 0
    there, or where the start is one of the states pcont_0 is, so that V_0 = r_0. The TF2 release
    leaves out the last state of each sequence instead, which is all that it can be where sequences
    end with their episodes.

    Without a value network (the paper's figure 4) the actor maximises the reward sum R_1 = sum
    weight_i r_i over i = 1..H; the score is then - mean weight_i log pi(a_(i-1)) stop(R_i). The
    paper writes that sum without discount; ours has pcont, as everywhere.

    Args:
        trajectory: Features [N, H, F].
        reward: The head, or the rewards r_1..r_H themselves, [N, H].
        value, discount: The heads; either may be None.
        gamma: Discount factor.
        lambda_: Mixture weight of the returns.
        gradient: "dynamics", through the model and reparameterised or straight-through actions;
            or "score", for one-hot actions.
        entropy: Weight of the policy's entropy, weighted like its states, in the actor's loss.
    Raises:
        ValueError: If rewards are given, but that of the start is needed too.
    """
    feat, goes_on = trajectory.feat, trajectory.goes_on
    from_start = value is not None and (gradient == "score" or feat.shape[1] == 1)
    if from_start:
        feat = tf.concat([trajectory.start[:, None], feat], 1)  # [N, L, F], L = H + 1
    rewards = over_leading(reward, feat) if callable(reward) else reward
    check_shape("reward", rewards, feat.shape[:2])
    values = None if value is None else over_leading(value, feat)  # [N, L]
    pcont = over_leading(discount, feat) if discount else gamma * tf.ones_like(rewards)
    if from_start and goes_on is not None:
        pcont = tf.concat([goes_on[:, None] * pcont[:, :1], pcont[:, 1:]], 1)
    targets = _targets(rewards, values, pcont, lambda_, None if from_start else goes_on)
    actor_loss = -_objective(trajectory, targets, gradient, entropy)
    metrics = {
        "actor_loss": actor_loss,
        "actor_entropy": -tf.reduce_mean(trajectory.log_prob),
        "imagined_reward": tf.reduce_mean(rewards),
        "imagined_return": tf.reduce_mean(targets.returns),
    }
    if values is None:
        return BehaviorLosses(actor_loss, None, metrics)
    value_loss, error = value_losses(targets.baseline, targets.returns, targets.weight)
    metrics["value_loss"], metrics["value_error"] = value_loss, error
    metrics["imagined_value"] = tf.reduce_mean(values)
    return BehaviorLosses(actor_loss, value_loss, metrics)


class _Targets(NamedTuple):
    """What actions are judged by; all [N, M], M being L - 1, or H without a value network."""

    returns: tf.Tensor
    baseline: tf.Tensor | None  # values of the same states
    weight: tf.Tensor


def _targets(
    rewards: tf.Tensor,
    values: tf.Tensor | None,
    pcont: tf.Tensor,
    lambda_: float,
    first_weight: tf.Tensor | None,
) -> _Targets:
    weight = trajectory_weights(pcont)
    if first_weight is not None:
        weight = first_weight[:, None] * weight
    if values is None:
        return _Targets(reward_sums(rewards, pcont), None, weight)
    returns = lambda_returns(rewards, values, pcont, lambda_)
    return _Targets(returns, values[:, :-1], weight[:, :-1])


def _objective(
    trajectory: Imagination, targets: _Targets, gradient: str, entropy: float
) -> tf.Tensor:
    """What the actor maximises, []."""
    returns, baseline, weight = targets
    if gradient == "score":
        advantage = returns if baseline is None else returns - baseline
        each = weight * trajectory.log_prob * tf.stop_gradient(advantage)
    else:
        each = (weight * returns)[:, 0] if baseline is None else weight * returns
    objective = tf.reduce_mean(each)
    if entropy:
        # Of the policy at as many states as have weights, which are the last ones but f_H.
        entropies = trajectory.entropy[:, -weight.shape[1] :]
        objective += entropy * tf.reduce_mean(weight * entropies)
    return objective


def value_losses(
    values: tf.Tensor, returns: tf.Tensor, weight: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Weighted mean of - log Normal(stop(returns) | values, 1), and the error's root mean square.

    Args:
        values, returns, weight: float32 of one shape.
    """
    targets = tf.stop_gradient(returns)
    loss = -tf.reduce_mean(weight * unit_normal_log_prob(targets, values, 0))
    return loss, tf.sqrt(average(tf.reduce_mean(tf.math.squared_difference(targets, values))))
