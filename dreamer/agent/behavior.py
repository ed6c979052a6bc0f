"""Imagined trajectories; losses of actor and value network (arXiv 1912.01603, section 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from dreamer.agent.value_losses import Replayed, annotate, replayed_value_loss, value_loss
from dreamer.nets.actor import Actor
from dreamer.nets.heads import Value
from dreamer.nets.return_range import ReturnRange
from dreamer.nets.rssm import RSSM, State
from dreamer.ops.returns import lambda_returns, reward_sums, trajectory_weights
from dreamer.ops.scalars import TwoHot, UnitNormal
from dreamer.ops.scan import scan
from dreamer.ops.shapes import check_shape, over_leading

Head = Callable[[tf.Tensor], tf.Tensor]  # features [N, F] -> [N]
Losses = dict[str, tf.Tensor]  # by the network that each trains


class Imagination(NamedTuple):
    """Imagined trajectories."""

    start: tf.Tensor  # [N, F], f_0 as the heads know it (RSSM.head_state)
    feat: tf.Tensor  # [N, H, F], f_1..f_H
    action: tf.Tensor  # [N, H, A], a_0..a_(H-1): action i led to feature i + 1
    log_prob: tf.Tensor  # [N, H], of the actions
    entropy: tf.Tensor  # [N, H], of the policy at f_0..f_(H-1)
    cont: tf.Tensor | None = None  # float32 [N], 0 at a terminal start; None: none is terminal
    chosen: tf.Tensor | None = None  # int32 [N], places of the starts among B*T; None: all of them


def imagine(
    rssm: RSSM, actor: Actor, start: State, latent_noise: tf.Tensor, action_noise: tf.Tensor,
    score: bool = False,
) -> Imagination:  # fmt: skip
    """Rolls the prior forward under the actor, differentiably.

    For i = 1..H: a_(i-1) is a sample of actor(stop(feat_(i-1))), z_i a sample of the prior.

    Args:
        rssm: The latent dynamics.
        actor: The policy.
        start: States z_0, entries [N, ...], without gradient.
        latent_noise: float32 [H, N, S], standard Normal.
        action_noise: float32 [H, N, A], standard Normal.
        score: Whether the log probabilities are for the score function, whose actions are held.
    """

    def step(state: State, noise: tuple[tf.Tensor, tf.Tensor]) -> tuple[State, tuple]:
        outputs = actor(tf.stop_gradient(rssm.feat(state)))
        action, _ = actor.policy(outputs).from_noise(noise[1])
        state = rssm.imagine_step(state, action, noise[0])
        return state, (state, outputs, action)

    states, outputs, actions = scan(step, start, (latent_noise, action_noise), axis=0)
    # Of all steps at once, because no step needs the densities.
    policy, drawn = actor.policy(outputs), tf.transpose(action_noise, [1, 0, 2])
    _, log_prob = policy.from_noise(drawn)
    entropy = policy.entropy(log_prob)
    log_prob = policy.score(drawn, log_prob) if score else log_prob
    return Imagination(rssm.feat(start), rssm.feat(states), actions, log_prob, entropy)


class Judgement(NamedTuple):
    """The returns of trajectories, and their parts. L = H + 1 if the start is a state, else H.

    M = L - 1, or H without a value network.
    """

    returns: tf.Tensor  # [N, M], V or R
    weight: tf.Tensor  # [N, M]
    rewards: tf.Tensor  # [N, L]
    values: UnitNormal | TwoHot | None  # [N, L]
    following: tf.Tensor | None  # [N, L], the values in returns


@dataclass(frozen=True)
class Behavior:
    """Actor and value loss on imagined trajectories (equations 7 and 8).

        actor loss = - mean weight_i V_i                                 over N and i = 1..H-1
        value loss = - mean weight_i log Normal(stop(V_i) | v_i, 1)     over N and i = 1..H-1

    Differentiate the actor loss by the actor's variables alone and the value loss by the value
    network's alone. One pass of the value network then serves both, because its gradient from the
    value loss does not depend on where the features came from.

    With ``gradient`` "score" nothing is differentiated through the dynamics (REINFORCE with the
    value as baseline). The start z_0 is then one of the states, because its action counts too, and
    weight_0 = 1, weight_i = pcont_0 ... pcont_(i-1):

        actor loss = - mean weight_i log pi(a_i) stop(V_i - v_i)         over N and i = 0..H-1

    Its expectation is the gradient of E[V_0] / H, exactly if lambda_ is 1 or v is the policy's
    value. With a horizon of one step the start is one of the states for either gradient, because
    V_1 = v_1 is no target, but V_0 = r_0 + pcont_0 v_1 is. The paper's sums begin at the start,
    too.

    Without a value network (the paper's figure 4) the actor maximises the reward sum R_1 = sum
    weight_i r_i over i = 1..H; the score is then - mean weight_i log pi(a_(i-1)) stop(R_i). The
    paper writes that sum without discount; ours has pcont, as everywhere.

    Attributes:
        gamma: Discount factor.
        lambda_: Mixture weight of the returns.
        gradient: "dynamics", through the model and reparameterised or straight-through actions;
            or "score".
        entropy: Weight of the policy's entropy in the actor's loss; each state's entropy is
            weighted like the state.
        entropy_final: Weight after `entropy_updates` updates.
        entropy_updates: Updates in which the weight changes linearly; 0: the weight is constant.
        slow_role: What a slow copy of the value network does. "target": returns have its values
            instead of v. "pull": the value loss also has
            - mean weight_i log p(stop(slow v_i)), where p is the value network's prediction.
        replay_scale: Weight of the value loss on replayed sequences (`replayed_value_loss`).
    """

    gamma: float
    lambda_: float
    gradient: str = "dynamics"
    entropy: float = 0.0
    entropy_final: float = 0.0
    entropy_updates: int = 0
    slow_role: str = "target"
    replay_scale: float = 0.0

    def entropy_weight(self, number: tf.Tensor | int) -> tf.Tensor | float:
        """The weight of the entropy in update `number`, int32 []."""
        if not self.entropy_updates:
            return self.entropy
        share = tf.minimum(tf.cast(number, tf.float32) / self.entropy_updates, 1.0)
        return self.entropy + share * (self.entropy_final - self.entropy)

    def judge(
        self, feat: tf.Tensor, reward: Head | tf.Tensor, value: Value | None, discount: Head | None,
        cont: tf.Tensor | None = None, from_start: bool = False, bootstrap: Head | None = None,
    ) -> Judgement:  # fmt: skip
        """Returns and weights of the states of imagined trajectories (equations 4 to 6).

        `dreamer.ops.returns` defines both. pcont is gamma, or the discount head's mean, which has
        learnt gamma * cont. A trajectory from a terminal start does not count: all its weights are
        0; or, where the start is one of the states, pcont_0 is 0, so V_0 = r_0. The TF2 release
        leaves out the last state of each sequence instead, which is the only state that can be
        terminal where sequences end with their episodes.

        Args:
            feat: Features of the states, [N, L, F].
            reward: The head, or the rewards themselves, [N, L].
            value, discount: The heads; either may be None.
            cont: As Imagination's.
            from_start: Whether f_0 is one of the states: i = 0..H, else 1..H.
            bootstrap: Gives the values in returns, if not `value`.
        """
        rewards = over_leading(reward, feat) if callable(reward) else reward
        check_shape("reward", rewards, feat.shape[:2])
        values = None if value is None else value.predict(feat)  # [N, L]
        pcont = over_leading(discount, feat) if discount else self.gamma * tf.ones_like(rewards)
        if from_start and cont is not None:
            pcont = tf.concat([cont[:, None] * pcont[:, :1], pcont[:, 1:]], 1)
        weight = trajectory_weights(pcont)
        if cont is not None and not from_start:
            weight = cont[:, None] * weight
        if values is None:
            return Judgement(reward_sums(rewards, pcont), weight, rewards, None, None)
        following = over_leading(bootstrap, feat) if bootstrap else values.mean
        returns = lambda_returns(rewards, following, pcont, self.lambda_)
        return Judgement(returns, weight[:, :-1], rewards, values, following)

    def losses(
        self, trajectory: Imagination, reward: Head | tf.Tensor, value: Value | None,
        discount: Head | None, slow: Head | None = None,
        return_range: ReturnRange | None = None, replayed: Replayed | None = None,
        number: tf.Tensor | int = 0,
    ) -> tuple[Losses, dict[str, tf.Tensor]]:  # fmt: skip
        """Losses "actor" and, with a value network, "value"; and scalar metrics.

        With `replayed` there is also "replayed", which trains value network and world model.

        Args:
            trajectory: Features [N, H, F].
            reward: The head, or the rewards r_1..r_H themselves, [N, H].
            value, discount: The heads; either may be None.
            slow: Slow copy of the value network.
            return_range: Learns the range of the returns, which the actor's loss then divides V_i,
                v_i and R_i by, so that an entropy weight suits rewards of any size.
            replayed: The sequences that the starts are from.
            number: Number of the update, by which the weight of the entropy changes.
        """
        feat = trajectory.feat
        from_start = value is not None and (self.gradient == "score" or feat.shape[1] == 1)
        if from_start:
            feat = tf.concat([trajectory.start[:, None], feat], 1)  # [N, H + 1, F]
        bootstrap = slow if self.slow_role == "target" else None
        judged = self.judge(feat, reward, value, discount, trajectory.cont, from_start, bootstrap)
        scale: tf.Tensor | float = 1.0
        if return_range is not None:
            return_range.learn(tf.stop_gradient(judged.returns))
            scale = return_range.scale()
        objective = self._objective(trajectory, judged, scale, number)
        losses: Losses = {"actor": -objective}  # equation 7
        metrics = {
            "actor_loss": losses["actor"],
            "actor_entropy": -tf.reduce_mean(trajectory.log_prob),
            "imagined_reward": tf.reduce_mean(judged.rewards),
            "imagined_return": tf.reduce_mean(judged.returns),
        }
        if return_range is not None:
            metrics["return_scale"] = tf.convert_to_tensor(scale)
        if judged.values is not None:
            baseline = judged.values.before_last()
            losses["value"], error = value_loss(baseline, *judged[:2])  # equation 8
            pull = None if bootstrap else slow
            if pull is not None:
                slowly = over_leading(pull, feat[:, :-1])
                losses["value"] += value_loss(baseline, slowly, judged.weight)[0]
            metrics |= {"value_loss": losses["value"], "value_error": error}
            metrics["imagined_value"] = tf.reduce_mean(judged.values.mean)
            if replayed is not None:  # DreamerV3's; from the returns at the trajectories' starts
                assert value is not None and callable(reward)
                first = self.start_returns(trajectory, judged, reward, discount)
                returns = annotate(first, trajectory.chosen, replayed.feat, bootstrap or value)
                loss = replayed_value_loss(
                    replayed, value, returns, self.gamma, self.lambda_, pull
                )[0]
                losses["replayed"] = self.replay_scale * loss
                metrics["replayed_value_loss"] = loss
        return losses, metrics

    def start_returns(
        self, trajectory: Imagination, judged: Judgement, reward: Head, discount: Head | None
    ) -> tf.Tensor:
        """V_0 of the starts, float32 [N], also where they are none of the judged states.

        V_0 = r_0 + pcont_0 ((1 - lambda) v_1 + lambda V_1)
        """
        if judged.rewards.shape[1] > trajectory.feat.shape[1]:
            return judged.returns[:, 0]
        start, following = trajectory.start, judged.following
        assert following is not None
        pcont = discount(start) if discount else self.gamma
        if trajectory.cont is not None:
            pcont *= trajectory.cont
        mixed = (1.0 - self.lambda_) * following[:, 0] + self.lambda_ * judged.returns[:, 0]
        return reward(start) + pcont * mixed

    def _objective(
        self, trajectory: Imagination, judged: Judgement, return_scale: tf.Tensor | float,
        number: tf.Tensor | int,
    ) -> tf.Tensor:  # fmt: skip
        """The scalar that the actor maximises, []."""
        returns, weight, values = judged.returns, judged.weight, judged.values
        if self.gradient == "score":
            advantage = returns if values is None else returns - values.before_last().mean
            each = weight * trajectory.log_prob * tf.stop_gradient(advantage)
        else:
            each = (weight * returns)[:, 0] if values is None else weight * returns
        objective = tf.reduce_mean(each) / return_scale
        if self.entropy or self.entropy_updates:
            # The entropies at the states that have weights: the last ones before f_H.
            entropies = trajectory.entropy[:, -weight.shape[1] :]
            entropy = tf.reduce_mean(weight * entropies)
            objective += self.entropy_weight(number) * entropy
        return objective
