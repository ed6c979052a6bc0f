"""Learners of Dreamer's variants: with an explorer, and with a planner instead of an actor."""

from __future__ import annotations

from dataclasses import replace

import tensorflow as tf

from dreamer.agent.behavior import Losses
from dreamer.agent.learner import Learner, Objective
from dreamer.agent.value_losses import replayed_value_loss
from dreamer.agent.world_model import Tensors
from dreamer.nets.rssm import State
from dreamer.ops.seeds import Purpose
from dreamer.ops.shapes import flatten_leading, over_leading


class ExplorerLearner(Learner):
    """Learns the task as Dreamer does, and to explore (after Plan2Explore, arXiv 2005.05960).

    While the agent explores, an ensemble of one-step predictors and a second actor, the explorer,
    learn too. The explorer's reward is the ensemble's disagreement. It always learns through the
    dynamics, without an entropy bonus.
    """

    def objectives(
        self, post: State, batch: Tensors, number: tf.Tensor, exploring: bool
    ) -> list[Objective]:
        """Dreamer's own losses; the ensemble's and the explorer's while the agent explores."""
        objectives = super().objectives(post, batch, number, exploring)
        if exploring:
            objectives.append(lambda: self.ensemble_loss(post, batch))
            objectives.append(lambda: self.explorer_losses(post, batch, number))
        return objectives

    def ensemble_loss(self, post: State, batch: Tensors) -> tuple[Losses, Tensors]:
        """Loss of predicting the next posterior mean from a state's features and the next action,
        within episodes."""
        model, ensemble = self.networks.model, self.networks.ensemble
        assert ensemble is not None
        feat = tf.stop_gradient(model.rssm.feat(post))
        inputs = flatten_leading(tf.concat([feat[:, :-1], batch["action"][:, 1:]], -1))
        mean = model.rssm.latent.mean(post)
        target = tf.stop_gradient(flatten_leading(mean[:, 1:]))
        within = 1.0 - tf.cast(tf.reshape(batch["is_first"][:, 1:], [-1]), tf.float32)
        loss = ensemble.loss(inputs, target, within)
        known = tf.reduce_mean(ensemble.disagreement(inputs))
        return {"ensemble": loss}, {"ensemble_loss": loss, "replayed_disagreement": known}

    def explorer_losses(
        self, post: State, batch: Tensors, number: tf.Tensor
    ) -> tuple[Losses, Tensors]:
        """`behavior_losses` for the explorer and its value network."""
        networks = self.networks
        assert networks.explorer is not None and networks.ensemble is not None
        purposes = Purpose.EXPLORED, Purpose.EXPLORED_ACTIONS
        trajectory = self.imagine(networks.explorer, post, batch, number, *purposes)
        # The reward on arriving at f_i is the disagreement about what follows f_(i-1), a_(i-1).
        before = tf.concat([trajectory.start[:, None], trajectory.feat[:, :-1]], 1)
        inputs = tf.concat([before, trajectory.action], -1)  # [N, H, F+A]
        own = replace(self.behavior, gradient="dynamics", entropy=0.0, entropy_updates=0)
        losses, metrics = own.losses(
            trajectory,
            over_leading(networks.ensemble.disagreement, inputs),
            networks.explorer_value,
            networks.model.discount,
        )
        named = {"explorer": losses["actor"], "explorer_value": losses["value"]}
        return named, {f"explorer_{name}": metric for name, metric in metrics.items()}


class PlannerLearner(Learner):
    """Learns without an actor: the planner acts. The value network, if there is one, learns from
    the lambda-returns of the planner's own actions, along the replayed sequences."""

    def objectives(
        self, post: State, batch: Tensors, number: tf.Tensor, exploring: bool
    ) -> list[Objective]:
        """The value network's loss, or none."""
        del number, exploring
        if self.networks.value is None:
            return []
        return [lambda: self.replayed_value_loss(post, batch)]

    def replayed_value_loss(self, post: State, batch: Tensors) -> tuple[Losses, Tensors]:
        """Loss of the value network on posterior states [B, T, ...]."""
        value = self.networks.value
        assert value is not None
        replayed = self.replayed(post, batch)
        replayed = replayed._replace(feat=tf.stop_gradient(replayed.feat))
        loss, error = replayed_value_loss(
            replayed, value, None, self.behavior.gamma, self.behavior.lambda_
        )
        return {"value": loss}, {"value_loss": loss, "value_error": error}
