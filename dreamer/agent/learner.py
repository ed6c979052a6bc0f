"""One update of Dreamer on one page (arXiv 1912.01603, algorithm 1; the equations are its own).

    world model loss   equation 10       `Learner.gradients`, which calls `WorldModel.loss`
    imagination        equations 1 to 3  `Learner.imagine`, which calls `behavior.imagine`
    returns V          equations 4 to 6  `behavior_losses`, which calls `behavior.judge`
    actor loss         equation 7        `behavior_losses`, `actor_objective`
    value loss         equation 8        `behavior_losses`, `value_loss`
    three steps                          `Learner.apply`, which calls `apply_together`

All losses are computed with the weights before the update; then the optimizers step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import tensorflow as tf

from dreamer.agent import behavior
from dreamer.agent.behavior import Head, Imagination, Judgement, judge
from dreamer.agent.networks import Networks
from dreamer.agent.world_model import Tensors
from dreamer.nets.actor import Actor
from dreamer.nets.rssm import State
from dreamer.ops.distributions import unit_normal_log_prob
from dreamer.ops.optimizers import Optimizer, apply_together
from dreamer.ops.replicas import average, averaged, batch_normal
from dreamer.ops.seeds import Purpose, make_seeds
from dreamer.ops.shapes import flatten_leading

Losses = dict[str, tf.Tensor]  # by the network that each trains
Gradients = dict[str, list[tf.Tensor]]  # by network, of the scaled losses
Objective = Callable[[], tuple[Losses, Tensors]]  # with metrics


class Learner:
    """Trains an agent's networks on batches from the replay.

    Subclasses learn something else on top of the world model: they override `objectives`.

    Args:
        networks: The agent's networks.
        optimizers: One for each network that learns, by its name.
        seed: Of the random streams.
        horizon: H.
        gamma, lambda_: Of the returns.
        gradient, entropy: Of the actor's loss; see `behavior_losses`.
    """

    def __init__(
        self,
        networks: Networks,
        optimizers: Mapping[str, Optimizer],
        *,
        seed: int,
        horizon: int,
        gamma: float,
        lambda_: float,
        gradient: str = "dynamics",
        entropy: float = 0.0,
    ):
        self.networks, self.optimizers = networks, optimizers
        self._seed, self._horizon = seed, horizon
        self._gamma, self._lambda = gamma, lambda_
        self._gradient, self._entropy = gradient, entropy

    def update(self, batch: Tensors, number: tf.Tensor, exploring: bool) -> Tensors:
        """Trains every network once.

        Args:
            batch: Tensors [B, T, ...].
            number: int32 [], number of this update; its random numbers follow from it.
            exploring: Whether the agent still explores, for learners to which it matters.
        Returns:
            Scalar metrics.
        """
        gradients, losses, metrics = self.gradients(batch, number, exploring)
        return metrics | self.apply(gradients, losses)

    def gradients(
        self, batch: Tensors, number: tf.Tensor, exploring: bool
    ) -> tuple[Gradients, Losses, Tensors]:
        """The first half of `update`, on the batch or on one device's share of its sequences.

        Args:
            batch, number, exploring: As `update`'s.
        Returns:
            Gradients of the scaled losses, losses, and metrics; averaged over the devices.
        """
        model, post = self.networks.model, State()
        seed = make_seeds(self._seed, Purpose.LATENT, number)[0]
        noise = batch_normal([*batch["reward"].shape, model.noise_size], seed, 0)

        def model_loss() -> tuple[Losses, Tensors]:
            loss, states, metrics = model.loss(batch, noise)  # equation 10
            post.update(states)
            return {"model": loss}, metrics

        gradients, losses, metrics = self._differentiate(model_loss)
        starts = {k: tf.stop_gradient(v) for k, v in post.items()}
        for objective in self.objectives(starts, batch, number, exploring):
            more_gradients, more_losses, more_metrics = self._differentiate(objective)
            gradients |= more_gradients
            losses |= more_losses
            metrics |= more_metrics
        return averaged((gradients, losses, metrics))

    def apply(self, gradients: Gradients, losses: Losses) -> Tensors:
        """The second half: steps all networks, or none if a loss or a gradient is not finite."""
        optimizers = {name: self.optimizers[name] for name in gradients}
        return apply_together(optimizers, gradients, losses)

    def objectives(
        self, post: State, batch: Tensors, number: tf.Tensor, exploring: bool
    ) -> list[Objective]:
        """The losses besides the world model's, each to be differentiated by itself.

        Args:
            post: Posterior states [B, T, ...], without gradient.
            batch, number, exploring: As `update`'s.
        """
        del exploring

        def behave() -> tuple[Losses, Tensors]:
            losses = self.behavior_losses(post, batch, number)
            return losses.by_network("actor", "value"), losses.metrics

        return [behave]

    def behavior_losses(self, post: State, batch: Tensors, number: tf.Tensor) -> BehaviorLosses:
        """The actor's and the value network's losses, imagined from posterior states."""
        model, actor = self.networks.model, self.networks.actor
        assert actor is not None
        purposes = Purpose.IMAGINED, Purpose.ACTIONS
        return behavior_losses(
            self.imagine(actor, post, batch, number, *purposes),
            model.reward,
            self.networks.value,
            model.discount,
            gamma=self._gamma,
            lambda_=self._lambda,
            gradient=self._gradient,
            entropy=self._entropy,
        )

    def imagine(
        self,
        actor: Actor,
        post: State,
        batch: Tensors,
        number: tf.Tensor,
        latent: Purpose,
        action: Purpose,
    ) -> Imagination:
        """Trajectories from every posterior state; N = B*T.

        Args:
            actor: The policy.
            post, batch, number: As `objectives`'s.
            latent, action: The random streams of latent states and actions.
        """
        model = self.networks.model
        start = {k: tf.stop_gradient(flatten_leading(v)) for k, v in post.items()}
        n, h = start["deter"].shape[0], self._horizon
        seeds = [make_seeds(self._seed, purpose, number)[0] for purpose in (latent, action)]
        latent_noise = batch_normal([h, n, model.rssm.stoch_size], seeds[0], 1)
        action_noise = batch_normal([h, n, actor.actions], seeds[1], 1)
        trajectory = behavior.imagine(model.rssm, actor, start, latent_noise, action_noise)
        feat = model.rssm.head_features(post, batch["action"], batch["is_first"])
        cont = tf.reshape(batch["cont"], [-1]) if model.discount else None
        return trajectory._replace(start=tf.stop_gradient(flatten_leading(feat)), cont=cont)

    def _differentiate(self, objective: Objective) -> tuple[Gradients, Losses, Tensors]:
        """Gradients of each scaled loss by its own network's variables; the losses; the metrics."""
        with tf.GradientTape(persistent=True) as tape:
            losses, metrics = objective()
            scaled = {name: self.optimizers[name].scaled(x) for name, x in losses.items()}
        networks = self.networks.named()
        gradients = {
            name: tape.gradient(loss, networks[name].trainable_variables)
            for name, loss in scaled.items()
        }
        return gradients, dict(losses), dict(metrics)


class BehaviorLosses(NamedTuple):
    """Losses of a batch of imagined trajectories, and scalar metrics."""

    actor: tf.Tensor  # []
    value: tf.Tensor | None  # [], None where there is no value network
    metrics: Tensors

    def by_network(self, actor: str, value: str) -> Losses:
        """The losses by the names of the networks that they train."""
        return {actor: self.actor} | ({} if self.value is None else {value: self.value})


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

    Its expectation is the gradient of E[V_0] / H, exactly so with lambda_ = 1 or where v is the
    policy's value. The start is also one of the states with a horizon of one step, whichever the
    gradient: V_1 = v_1 has no target, but V_0 = r_0 + pcont_0 v_1 has, as in the paper, whose sums
    begin at the start.

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
        entropy: Weight of the policy's entropy in the actor's loss; each state's entropy is
            weighted like the state.
    """
    from_start = value is not None and (gradient == "score" or trajectory.feat.shape[1] == 1)
    judged = judge(
        trajectory, reward, value, discount, from_start=from_start, gamma=gamma, lambda_=lambda_
    )  # equations 4 to 6
    actor_loss = -actor_objective(trajectory, judged, gradient, entropy)  # equation 7
    metrics = {
        "actor_loss": actor_loss,
        "actor_entropy": -tf.reduce_mean(trajectory.log_prob),
        "imagined_reward": tf.reduce_mean(judged.rewards),
        "imagined_return": tf.reduce_mean(judged.returns),
    }
    if judged.values is None:
        return BehaviorLosses(actor_loss, None, metrics)
    loss, error = value_loss(judged.baseline, judged.returns, judged.weight)  # equation 8
    metrics |= {"value_loss": loss, "value_error": error}
    metrics["imagined_value"] = tf.reduce_mean(judged.values)
    return BehaviorLosses(actor_loss, loss, metrics)


def actor_objective(
    trajectory: Imagination, judged: Judgement, gradient: str, entropy: float
) -> tf.Tensor:
    """What the actor maximises, []; see `behavior_losses`."""
    returns, baseline, weight = judged.returns, judged.baseline, judged.weight
    if gradient == "score":
        advantage = returns if baseline is None else returns - baseline
        each = weight * trajectory.log_prob * tf.stop_gradient(advantage)
    else:
        each = (weight * returns)[:, 0] if baseline is None else weight * returns
    objective = tf.reduce_mean(each)
    if entropy:
        # The policy's at as many states as have weights, which are the last ones but f_H.
        entropies = trajectory.entropy[:, -weight.shape[1] :]
        objective += entropy * tf.reduce_mean(weight * entropies)
    return objective


def value_loss(
    values: tf.Tensor, returns: tf.Tensor, weight: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Weighted mean of - log Normal(stop(returns) | values, 1), and the error's root mean square.

    Args:
        values, returns, weight: float32 of one shape.
    """
    targets = tf.stop_gradient(returns)
    loss = -tf.reduce_mean(weight * unit_normal_log_prob(targets, values, 0))
    return loss, tf.sqrt(average(tf.reduce_mean(tf.math.squared_difference(targets, values))))
