"""One update of Dreamer on one page (arXiv 1912.01603, algorithm 1; the equations are its own).

    world model loss   equation 10       `Learner.gradients`, which calls `WorldModel.loss`
    imagination        equations 1 to 3  `Learner.imagine`, which calls `behavior.imagine`
    returns V          equations 4 to 6  `Behavior.judge`
    actor loss         equation 7        `Behavior.losses`
    value loss         equation 8        `Behavior.losses`, which calls `value_loss`
    three steps                          `Learner.apply`, which calls `apply_together`

All losses are computed with the weights before the update; then the optimizers step. What later
recipes add, by their keys:

    optimizer.shared      One optimizer makes the three steps; each loss trains what it always does.
    value.slow_rate       A slow copy of the value network, which `Learner.apply` moves.
    value.replay_scale    A value loss on replayed states, which trains the model, too. So actor and
                          value losses are computed with the model's, in `Learner.gradients`.
    behavior.starts       Fewer imagined trajectories, from states that `Learner.imagine` draws.
    replay.latents        Sequences that start from a "latent", and the states to store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

from dreamer.agent import behavior
from dreamer.agent.behavior import Behavior, Imagination, Losses
from dreamer.agent.networks import SHARED, Networks
from dreamer.agent.value_losses import Replayed
from dreamer.agent.world_model import Tensors
from dreamer.nets.actor import Actor
from dreamer.nets.rssm import State
from dreamer.ops.affine import JointGradients
from dreamer.ops.optimizers import Optimizer, apply_together
from dreamer.ops.replicas import averaged, batch_normal, follow, gather, replicas
from dreamer.ops.seeds import Purpose, make_seeds
from dreamer.ops.shapes import flatten_leading

Gradients = dict[str, list[tf.Tensor]]  # by network, of the scaled losses
LATENTS = "latents"  # among the metrics: the posterior features [B, T, F] of the whole batch
Objective = Callable[[], tuple[Losses, Tensors]]  # with metrics


class Learner:
    """Trains an agent's networks on batches from the replay.

    Subclasses learn something else on top of the world model: they override `objectives`.

    Args:
        networks: The agent's networks.
        optimizers: One for each network that learns, by its name; or `SHARED` for several.
        behavior: The losses of actor and value network.
        seed: Seed of the random streams.
        horizon: H, the number of imagined steps.
        slow_rate: Rate at which the slow copy follows the value network, if there is a copy.
        slow_every: Updates between two such steps.
        starts: Imagined trajectories; 0 for one from every state.
    """

    def __init__(
        self, networks: Networks, optimizers: Mapping[str, Optimizer], behavior: Behavior, *,
        seed: int, horizon: int, slow_rate: float = 0.0, slow_every: int = 1, starts: int = 0,
    ):  # fmt: skip
        self.networks, self.optimizers, self.behavior = networks, optimizers, behavior
        self._seed, self._horizon, self._slow_rate = seed, horizon, slow_rate
        self._slow_every, self._starts = slow_every, starts

    def update(
        self, batch: Tensors, number: tf.Tensor, exploring: bool, behaving: bool = True
    ) -> Tensors:
        """Trains every network once; returns scalar metrics.

        Args:
            batch: Tensors [B, T, ...].
            number: int32 [], number of this update; its random numbers follow from it.
            exploring: Whether the explorer collects; learners without one ignore this.
            behaving: Whether behaviour learns, too, or the world model alone.
        """
        gradients, losses, metrics = self.gradients(batch, number, exploring, behaving)
        return metrics | self.apply(gradients, losses, number)

    def gradients(
        self, batch: Tensors, number: tf.Tensor, exploring: bool, behaving: bool = True
    ) -> tuple[Gradients, Losses, Tensors]:
        """The first half of `update`, on the batch or on one device's share of its sequences.

        Returns gradients of the scaled losses, losses, and metrics, averaged over the devices. If
        sequences come with a "latent" that they start from, the metrics have `LATENTS`, too.
        """
        model, post = self.networks.model, State()
        seed = make_seeds(self._seed, Purpose.LATENT, number)[0]
        noise = batch_normal([*batch["reward"].shape, model.noise_size], seed, 0)

        model.learn_scales(batch)

        def model_loss() -> tuple[Losses, Tensors]:
            loss, states, metrics = model.loss(batch, noise)  # equation 10
            post.update(states)
            if not (behaving and self.behavior.replay_scale):
                return {"model": loss}, metrics
            losses, more = self.behavior_losses(post, batch, number)
            replayed = losses.pop("replayed")
            losses |= {"model": loss + replayed, "value": losses["value"] + replayed}
            return losses, metrics | more

        found = self._differentiate(model_loss)
        objectives = self.objectives(post, batch, number, exploring) if behaving else []
        for objective in objectives:
            for every, more in zip(found, self._differentiate(objective), strict=True):
                every.update(more)
        if "latent" in batch:
            found[2][LATENTS] = gather(model.rssm.feat(post))
        return averaged(found)

    def apply(self, gradients: Gradients, losses: Losses, number: tf.Tensor) -> Tensors:
        """The second half: steps all networks, or none if a loss or gradient is not finite.

        Then the slow copy of the value network follows it, if it is time. Returns the metrics of
        `apply_together`.
        """
        gradients = self._by_optimizer(gradients)
        optimizers = {name: self.optimizers[name] for name in gradients}
        metrics = apply_together(optimizers, gradients, losses)
        value, slow = self.networks.value, self.networks.slow_value
        if value is not None and slow is not None:
            rate = self._slow_rate * (1.0 - metrics["skipped"])
            if self._slow_every > 1:
                rate *= tf.cast((number + 1) % self._slow_every == 0, tf.float32)
            follow(rate, value.variables, slow.variables)
        return metrics

    def objectives(
        self, post: State, batch: Tensors, number: tf.Tensor, exploring: bool
    ) -> list[Objective]:
        """The losses besides those of `gradients`, each to be differentiated by itself.

        Args:
            post: Posterior states [B, T, ...].
            batch, number, exploring: As `update`'s.
        """
        del exploring
        if self.behavior.replay_scale:
            return []  # `gradients` has them
        return [lambda: self.behavior_losses(post, batch, number)]

    def behavior_losses(
        self, post: State, batch: Tensors, number: tf.Tensor
    ) -> tuple[Losses, Tensors]:
        """The losses of actor and value network, imagined from posterior states [B, T, ...]."""
        model, actor = self.networks.model, self.networks.actor
        assert actor is not None
        purposes = Purpose.IMAGINED, Purpose.ACTIONS
        trajectory = self.imagine(actor, post, batch, number, *purposes)
        replayed = self.replayed(post, batch) if self.behavior.replay_scale else None
        return self.behavior.losses(
            trajectory, model.reward, self.networks.value, model.discount,
            self.networks.slow_value, self.networks.return_range, replayed, number,
        )  # fmt: skip

    def replayed(self, post: State, batch: Tensors) -> Replayed:
        """What a value network learns from, of posterior states [B, T, ...]."""
        model, is_first = self.networks.model, batch["is_first"]
        feat = model.rssm.head_features(post, batch["action"], is_first)
        return Replayed(feat, model.reward.target(batch["reward"]), batch["cont"], is_first)

    def imagine(
        self, actor: Actor, post: State, batch: Tensors, number: tf.Tensor, latent: Purpose,
        action: Purpose,
    ) -> Imagination:  # fmt: skip
        """Trajectories from posterior states: from every one, N = B*T, or from N drawn ones.

        Args:
            actor: The policy.
            post, batch, number: As `objectives`'s.
            latent, action: The random streams of latent states and actions.
        """
        model = self.networks.model
        feat = model.rssm.head_features(post, batch["action"], batch["is_first"])
        chosen = self._choose_starts(number, feat.shape[0] * feat.shape[1])

        def flat(tensor: tf.Tensor, keep: int = 1) -> tf.Tensor:
            rows = flatten_leading(tensor, keep)
            return tf.stop_gradient(rows if chosen is None else tf.gather(rows, chosen))

        start = {k: flat(v) for k, v in post.items()}
        n, h = start["deter"].shape[0], self._horizon
        seeds = [make_seeds(self._seed, purpose, number)[0] for purpose in (latent, action)]
        latent_noise = batch_normal([h, n, model.rssm.stoch_size], seeds[0], 1)
        action_noise = batch_normal([h, n, actor.actions], seeds[1], 1)
        score = self.behavior.gradient == "score" and latent == Purpose.IMAGINED  # no explorer's
        trajectory = behavior.imagine(model.rssm, actor, start, latent_noise, action_noise, score)
        cont = flat(batch["cont"], 0) if model.discount else None
        return trajectory._replace(start=flat(feat), cont=cont, chosen=chosen)

    def _choose_starts(self, number: tf.Tensor, states: int) -> tf.Tensor | None:
        """Indices of this device's share of the starts among its states; None for all of them."""
        count = self._starts // replicas()
        if not self._starts or count >= states:
            return None
        seed = make_seeds(self._seed, Purpose.STARTS, number)[0]
        # XLA has no random permutation, but it sorts.
        return tf.math.top_k(tf.random.stateless_uniform([states], seed), count).indices

    def _differentiate(self, objective: Objective) -> tuple[Gradients, Losses, Tensors]:
        """Gradients of each scaled loss by its own network's variables; the losses; the metrics."""
        with tf.GradientTape(persistent=True) as tape, JointGradients(tape) as joint:
            losses, metrics = objective()
            scaled = {name: self._optimizer(name).scaled(x) for name, x in losses.items()}
        networks = self.networks.named()
        gradients = {
            name: joint.gradient(loss, networks[name].trainable_variables)
            for name, loss in scaled.items()
        }
        return gradients, losses, metrics

    def _optimizer(self, network: str) -> Optimizer:
        """What trains a network."""
        return self.optimizers.get(network) or self.optimizers[SHARED]

    def _by_optimizer(self, gradients: Gradients) -> Gradients:
        """The gradients of each optimizer; zeros for a network that waits (behavior.after)."""
        if SHARED not in self.optimizers:
            return gradients
        alone = {name: found for name, found in gradients.items() if name in self.optimizers}
        joined: list[tf.Tensor] = []
        for name, variables in self.networks.sharing().items():
            joined += gradients.get(name) or [tf.zeros(v.shape) for v in variables]
        return {SHARED: joined, **alone}
