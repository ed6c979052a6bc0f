"""One update: the losses of every part with the weights before it, then all optimizers' steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from dreamer.agent import behavior
from dreamer.agent.networks import Parts
from dreamer.agent.world_model import Tensors
from dreamer.nets.actor import Actor
from dreamer.ops.optimizers import Optimizer, apply_together
from dreamer.ops.replicas import averaged, batch_normal
from dreamer.ops.returns import replayed_returns
from dreamer.ops.seeds import Purpose, make_seeds
from dreamer.ops.shapes import flatten_leading, over_leading

Losses = dict[str, tf.Tensor]  # by the part that each trains
Gradients = dict[str, list[tf.Tensor]]  # likewise, of the scaled losses
Objective = Callable[[], tuple[Losses, Tensors]]  # with metrics


class Learner:
    """Trains an agent's parts on batches from the replay.

    Args:
        parts: The networks.
        optimizers: One a part, by its name.
        seed: Of the random streams.
        horizon: H.
        gamma, lambda_: Of the returns.
        gradient, entropy: Of the actor's loss, as `behavior_losses` takes them. The explorer
            always learns through the dynamics.
    """

    def __init__(
        self,
        parts: Parts,
        optimizers: Mapping[str, Optimizer],
        *,
        seed: int,
        horizon: int,
        gamma: float,
        lambda_: float,
        gradient: str,
        entropy: float,
    ):
        self._parts, self._optimizers, self._seed = parts, optimizers, seed
        self._horizon = horizon
        self._returns: dict[str, Any] = {"gamma": gamma, "lambda_": lambda_}
        self._actor_loss: dict[str, Any] = {"gradient": gradient, "entropy": entropy}

    def update(self, batch: Tensors, update: tf.Tensor, exploring: bool) -> Tensors:
        """Trains every part once.

        Args:
            batch: Tensors [B, T, ...].
            update: int32 [], number of this update.
            exploring: Whether ensemble and explorer learn too.
        Returns:
            Scalar metrics.
        """
        gradients, losses, metrics = self.averaged_gradients(batch, update, exploring)
        return metrics | self.apply(gradients, losses)

    def apply(self, gradients: Gradients, losses: Losses) -> Tensors:
        """Steps the parts that have gradients, or none of them; returns metrics of that."""
        optimizers = {name: self._optimizers[name] for name in gradients}
        return apply_together(optimizers, gradients, losses)

    def averaged_gradients(
        self, batch: Tensors, update: tf.Tensor, exploring: bool
    ) -> tuple[Gradients, Losses, Tensors]:
        """What `update` steps by, of a batch, or of the whole where this is a replica's share.

        Args:
            batch, update, exploring: As `update`'s.
        Returns:
            Gradients of the scaled losses, losses, and metrics.
        """
        model = self._parts.model
        seed = make_seeds(self._seed, Purpose.LATENT, update)[0]
        noise = batch_normal([*batch["reward"].shape, model.noise_size], seed, 0)
        states: list[Tensors] = []

        def model_losses() -> tuple[Losses, Tensors]:
            loss, post, metrics = model.loss(batch, noise)
            states.append(post)
            return {"model": loss}, metrics

        gradients, losses, metrics = self._differentiate(model_losses)
        for losses_of in self._objectives(states[0], batch, update, exploring):
            more_gradients, more_losses, more_metrics = self._differentiate(losses_of)
            gradients |= more_gradients
            losses |= more_losses
            metrics |= more_metrics
        return averaged((gradients, losses, metrics))

    def _objectives(
        self, post: Tensors, batch: Tensors, update: tf.Tensor, exploring: bool
    ) -> list[Objective]:
        """What the agent learns on top of its model, each to be differentiated by itself."""
        parts = self._parts
        post = {k: tf.stop_gradient(v) for k, v in post.items()}
        todo: list[Objective] = []
        if parts.actor is not None:
            todo.append(lambda: _named(self.behavior_losses(post, batch, update), ""))
        elif parts.value is not None:
            todo.append(lambda: self.replayed_value_loss(post, batch))
        if exploring:
            todo.append(lambda: self.ensemble_loss(post, batch))
            todo.append(lambda: _named(self.explorer_losses(post, batch, update), "explorer_"))
        return todo

    def _differentiate(
        self, losses_of: Objective
    ) -> tuple[Gradients, Losses, Tensors]:
        """Gradients of each part's scaled loss by its own variables, the losses, the metrics."""
        with tf.GradientTape(persistent=True) as tape:
            losses, metrics = losses_of()
            scaled = {name: self._optimizers[name].scaled(x) for name, x in losses.items()}
        parts = self._parts.named()
        gradients = {
            name: tape.gradient(loss, parts[name].trainable_variables)
            for name, loss in scaled.items()
        }
        return gradients, dict(losses), dict(metrics)

    # --------------------------------------------------------- in imagination

    def behavior_losses(
        self, post: Tensors, batch: Tensors, update: tf.Tensor
    ) -> behavior.BehaviorLosses:
        """The task's actor and value losses, imagined from posterior states [B, T, ...]."""
        model, actor = self._parts.model, self._parts.actor
        assert actor is not None
        purposes = (Purpose.IMAGINED, Purpose.ACTIONS)
        trajectory = self._imagine(actor, post, batch, update, purposes)
        settings = self._returns | self._actor_loss
        return behavior.behavior_losses(
            trajectory, model.reward, self._parts.value, model.discount, **settings
        )

    def explorer_losses(
        self, post: Tensors, batch: Tensors, update: tf.Tensor
    ) -> behavior.BehaviorLosses:
        """The same of the explorer, whose reward on arriving at f_i is the ensemble's disagreement
        about what follows f_(i-1) and a_(i-1)."""
        parts = self._parts
        assert parts.explorer is not None and parts.ensemble is not None
        purposes = (Purpose.EXPLORED, Purpose.EXPLORED_ACTIONS)
        trajectory = self._imagine(parts.explorer, post, batch, update, purposes)
        before = tf.concat([trajectory.start[:, None], trajectory.feat[:, :-1]], 1)
        inputs = tf.concat([before, trajectory.action], -1)  # [N, H, F+A]
        reward = over_leading(parts.ensemble.disagreement, inputs)
        return behavior.behavior_losses(
            trajectory, reward, parts.explorer_value, parts.model.discount, **self._returns
        )

    def _imagine(
        self,
        actor: Actor,
        post: Tensors,
        batch: Tensors,
        update: tf.Tensor,
        purposes: tuple[Purpose, Purpose],
    ) -> behavior.Imagination:
        rssm = self._parts.model.rssm
        start = {k: tf.stop_gradient(flatten_leading(v)) for k, v in post.items()}
        n, h = start["deter"].shape[0], self._horizon
        latent, action = (make_seeds(self._seed, purpose, update)[0] for purpose in purposes)
        latent_noise = batch_normal([h, n, rssm.stoch_size], latent, 1)
        action_noise = batch_normal([h, n, actor.actions], action, 1)
        trajectory = behavior.imagine(rssm, actor, start, latent_noise, action_noise)
        known = rssm.explaining_feat(post, batch["action"], batch["is_first"])
        goes_on = tf.reshape(batch["cont"], [-1]) if self._parts.model.discount else None
        return trajectory._replace(
            start=tf.stop_gradient(flatten_leading(known)), goes_on=goes_on
        )

    # -------------------------------------------------------- on replayed data

    def ensemble_loss(self, post: Tensors, batch: Tensors) -> tuple[Losses, Tensors]:
        """Of predicting the next posterior mean from a state's features and the action after it,
        within episodes."""
        model, ensemble = self._parts.model, self._parts.ensemble
        assert ensemble is not None
        feat = tf.stop_gradient(model.rssm.feat(post))
        inputs = flatten_leading(tf.concat([feat[:, :-1], batch["action"][:, 1:]], -1))
        target = tf.stop_gradient(flatten_leading(post["mean"][:, 1:]))
        within = 1.0 - tf.cast(tf.reshape(batch["is_first"][:, 1:], [-1]), tf.float32)
        loss = ensemble.loss(inputs, target, within)
        known = tf.reduce_mean(ensemble.disagreement(inputs))
        return {"ensemble": loss}, {"ensemble_loss": loss, "replayed_disagreement": known}

    def replayed_value_loss(self, post: Tensors, batch: Tensors) -> tuple[Losses, Tensors]:
        """Of the value network where there is no actor to imagine with: lambda-returns of what the
        planner did, along the replayed sequences."""
        model, value = self._parts.model, self._parts.value
        assert value is not None
        feat = model.rssm.explaining_feat(post, batch["action"], batch["is_first"])
        values = over_leading(value, tf.stop_gradient(feat))  # [B, T]
        pcont = self._returns["gamma"] * batch["cont"]
        reward = model.reward.target(batch["reward"])
        returns, weight = replayed_returns(
            reward, tf.stop_gradient(values), pcont, batch["is_first"], self._returns["lambda_"]
        )
        loss, error = behavior.value_losses(values[:, :-1], returns, weight)
        return {"value": loss}, {"value_loss": loss, "value_error": error}


def _named(losses: behavior.BehaviorLosses, prefix: str) -> tuple[Losses, Tensors]:
    """Losses by the parts they train (explorer's without a suffix), metrics with the prefix."""
    found = {prefix.removesuffix("_") or "actor": losses.actor}
    if losses.value is not None:
        found[f"{prefix}value"] = losses.value
    return found, {prefix + name: metric for name, metric in losses.metrics.items()}
