"""The networks of an agent, and their optimizers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import keras

from dreamer.agent.settings import ActorSettings, AgentSettings, MLPSettings, OptimizerSettings
from dreamer.agent.world_model import WorldModel
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.nets.actor import Actor, choose_distribution
from dreamer.nets.ensemble import Ensemble
from dreamer.nets.value import Value
from dreamer.ops.optimizers import Optimizer


@dataclass(frozen=True)
class Networks:
    """All networks of an agent. Those that an agent does not need are None.

    Attributes:
        model: World model.
        actor, value: For the task.
        ensemble: One-step predictors. The explorer seeks states where they disagree.
        explorer, explorer_value: The explorer's actor and value network.
    """

    model: WorldModel
    actor: Actor | None = None
    value: Value | None = None
    ensemble: Ensemble | None = None
    explorer: Actor | None = None
    explorer_value: Value | None = None

    def named(self) -> dict[str, keras.layers.Layer]:
        """The networks that exist, by their names in checkpoints and among the optimizers."""
        return {name: network for name, network in vars(self).items() if network is not None}


def make_networks(
    model: WorldModel, act_space: Space, settings: AgentSettings, dtype: keras.DTypePolicy
) -> Networks:
    """Makes Dreamer's actors and value networks for a world model that is built already.

    Raises:
        UserError: If settings do not fit the actions or each other.
    """
    feat, actions = model.rssm.feat_size, act_space.shape[0]
    behavior, until = settings.behavior, settings.disagreement.until
    planning = behavior.policy == "planner"
    actor = value = ensemble = explorer = explorer_value = None
    if not planning:
        actor = make_actor("actor", settings.actor, act_space, dtype)
    if settings.planner.returns == "lambda" if planning else behavior.value:
        value = make_value("value", settings.value, dtype)
    if until:
        explorer = make_actor("explorer", settings.actor, act_space, dtype)
        explorer_value = make_value("explorer_value", settings.value, dtype)
    for network in filter(None, (actor, value, explorer, explorer_value)):
        network.build((None, feat))
    if until:
        ensemble = _make_ensemble(model, actions, settings, dtype)
    return Networks(model, actor, value, ensemble, explorer, explorer_value)


def make_actor(
    name: str, settings: ActorSettings, act_space: Space, dtype: keras.DTypePolicy
) -> Actor:
    """An actor for the actions of a task.

    Raises:
        UserError: If settings.distribution does not fit the actions.
    """
    return Actor(
        act_space.shape[0],
        distribution=choose_distribution(settings.distribution, act_space.discrete),
        layers=settings.layers,
        units=settings.units,
        mean_scale=settings.mean_scale,
        init_std=settings.init_std,
        min_std=settings.min_std,
        dtype=dtype,
        name=name,
    )


def make_value(name: str, settings: MLPSettings, dtype: keras.DTypePolicy) -> Value:
    """A value network."""
    return Value(layers=settings.layers, units=settings.units, dtype=dtype, name=name)


def _make_ensemble(
    model: WorldModel, actions: int, settings: AgentSettings, dtype: keras.DTypePolicy
) -> Ensemble:
    rssm, sizes = model.rssm, settings.disagreement
    if not rssm.stoch_size:
        raise UserError(
            "disagreement.until needs a stochastic latent to predict; rssm.kind "
            "deterministic_only has none: choose another rssm.kind"
        )
    ensemble = Ensemble(
        members=sizes.members,
        layers=sizes.layers,
        units=sizes.units,
        outputs=rssm.stoch_size,
        dtype=dtype,
        name="ensemble",
    )
    ensemble.build((None, rssm.feat_size + actions))
    return ensemble


def make_optimizers(
    networks: Networks,
    settings: OptimizerSettings,
    scale_loss: bool,
    other_rates: Mapping[str, float] | None = None,
) -> dict[str, Optimizer]:
    """An optimizer for each network that has a learning rate.

    Args:
        networks: What there is to train. The explorer learns at the rates of the task's actor and
            value network, the ensemble at the model's.
        settings: Learning rates and the rest.
        scale_loss: Whether losses are scaled dynamically (float16).
        other_rates: Learning rates of networks that Dreamer does not have, by name.
    """
    model, actor, value = settings.model_lr, settings.actor_lr, settings.value_lr
    rates = {"model": model, "actor": actor, "value": value, "ensemble": model}
    rates |= {"explorer": actor, "explorer_value": value, **(other_rates or {})}
    return {
        name: Optimizer(
            network.trainable_variables,
            rates[name],
            eps=settings.eps,
            clip=settings.clip,
            scale_loss=scale_loss,
            apart=networks.model.diagnostic_variables if name == "model" else (),
            name=f"{name}_adam",
        )
        for name, network in networks.named().items()
        if name in rates
    }
