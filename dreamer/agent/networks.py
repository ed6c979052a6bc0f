"""The networks of an agent besides its world model, and the optimizers of all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from dreamer.agent.world_model import Sections, WorldModel
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.nets.actor import Actor
from dreamer.nets.ensemble import Ensemble
from dreamer.nets.heads import Value
from dreamer.nets.layer_style import LayerStyle
from dreamer.nets.return_range import ReturnRange
from dreamer.ops.optimizers import Optimizer, RateSchedule
from dreamer.ops.replicas import follow

SHARED = "shared"  # name of the one optimizer of model, actor and value network, if they share it


@dataclass(frozen=True)
class Networks:
    """All networks of an agent. Those that an agent does not need are None.

    Attributes:
        model: World model.
        actor, value: The task's.
        slow_value: A copy of the value network that follows it slowly.
        return_range: What the actor's loss divides returns by.
        ensemble: One-step predictors. The explorer seeks states where they disagree.
        explorer, explorer_value: The explorer's actor and value network.
    """

    model: WorldModel
    actor: Actor | None = None
    value: Value | None = None
    slow_value: Value | None = None
    return_range: ReturnRange | None = None
    ensemble: Ensemble | None = None
    explorer: Actor | None = None
    explorer_value: Value | None = None

    def named(self) -> dict[str, keras.layers.Layer]:
        """The networks that exist, by their names in checkpoints and among the optimizers."""
        return {name: network for name, network in vars(self).items() if network is not None}

    def sharing(self) -> dict[str, list]:
        """Trainable variables of the networks that can share an optimizer, by their names."""
        named = self.named()
        names = [name for name in ("model", "actor", "value") if name in named]
        return {name: named[name].trainable_variables for name in names}


OF_LOSS = ("gradient", "entropy", "entropy_final", "entropy_updates")
"""Keys of the section "actor" that are arguments of Behavior."""


def make_networks(model: WorldModel, act_space: Space, sections: Sections) -> Networks:
    """Makes Dreamer's actors and value networks for a world model that is built already.

    Raises:
        UserError: If settings do not fit the actions or each other.
    """
    style = LayerStyle(**sections["layers"])
    own = {k: v for k, v in sections["actor"].items() if k not in OF_LOSS}
    own["style"] = style
    behavior, ensemble_sizes = sections["behavior"], dict(sections["disagreement"])
    exploring, planning = ensemble_sizes.pop("until"), behavior["policy"] == "planner"
    feat = None, model.rssm.feat_size
    styled = {"style": style, "dtype": model.dtype_policy}
    sizes = {key: sections["value"][key] for key in ("layers", "units", "bins")} | styled
    actor = value = slow_value = return_range = ensemble = explorer = explorer_value = None
    if not planning:
        actor = make_actor(model, act_space, "actor", own)
        if behavior["normalize"] == "percentile":
            return_range = ReturnRange(name="return_range")
            return_range.build()
    if sections["planner"]["returns"] == "lambda" if planning else behavior["value"]:
        value = Value(**sizes, name="value")
        value.build(feat)
        if sections["value"]["slow_rate"]:
            slow_value = Value(**sizes, name="slow_value")
            slow_value.build(feat)
            follow(1.0, value.variables, slow_value.variables)
    if exploring:
        explorer = make_actor(model, act_space, "explorer", own)
        explorer_value = Value(**sizes, name="explorer_value")
        explorer_value.build(feat)
        if not model.rssm.stoch_size:
            raise UserError(
                "disagreement.until needs a stochastic latent to predict; rssm.kind "
                "deterministic_only has none: choose another rssm.kind"
            )
        ensemble = Ensemble(
            **ensemble_sizes, outputs=model.rssm.stoch_size, **styled, name="ensemble"
        )
        ensemble.build((None, model.rssm.feat_size + act_space.shape[0]))
    return Networks(
        model, actor, value, slow_value, return_range, ensemble, explorer, explorer_value
    )


def make_actor(model: WorldModel, act_space: Space, name: str, own: Mapping[str, Any]) -> Actor:
    """Makes and builds an actor for a world model's features; `own` are Actor's arguments."""
    actor = Actor(
        act_space.shape[0], act_space.discrete, parts=act_space.parts, **own,
        dtype=model.dtype_policy, name=name,
    )  # fmt: skip
    actor.build((None, model.rssm.feat_size))
    return actor


def make_optimizers(
    networks: Networks, scale_loss: bool, *, model_lr: float, actor_lr: float, value_lr: float,
    eps: float, clip: float, warmup: int, decay: str, decay_updates: int, final: float,
    algorithm: str = "adam", adaptive_clip: float = 0.0, weight_decay: float = 0.0,
    shared: bool = False, **other_lrs: float,
) -> dict[str, Optimizer]:  # fmt: skip
    """An optimizer for each network that has a learning rate, by the network's name.

    Args:
        networks: The networks to train.
        scale_loss, eps, clip, algorithm, adaptive_clip, weight_decay: As Optimizer's.
        shared: Whether `SHARED` trains model, actor and value network instead of one for each. They
            then have the model's learning rate, one global norm, one number of steps, and one loss
            scale.
        model_lr, actor_lr, value_lr: Learning rates. The explorer learns at the rates of the task's
            actor and value network, the ensemble at the model's.
        warmup, decay, decay_updates, final: The schedule of all learning rates, a RateSchedule's.
        other_lrs: Learning rates of networks that Dreamer does not have, by name.
    """
    rates = {"model": model_lr, "actor": actor_lr, "value": value_lr, "ensemble": model_lr}
    rates |= {"explorer": actor_lr, "explorer_value": value_lr, **other_lrs}
    schedule = RateSchedule(warmup, decay, decay_updates, final)
    variables = {n: x.trainable_variables for n, x in networks.named().items() if n in rates}
    if shared:
        together = networks.sharing()
        alone = {name: own for name, own in variables.items() if name not in together}
        variables = {SHARED: sum(together.values(), []), **alone}
        rates[SHARED] = model_lr
    return {
        name: Optimizer(
            own,
            rates[name],
            eps=eps,
            clip=clip,
            algorithm=algorithm,
            adaptive_clip=adaptive_clip,
            weight_decay=weight_decay,
            scale_loss=scale_loss,
            apart=networks.model.diagnostic_variables if name in ("model", SHARED) else (),
            name=f"{name}_adam",
            schedule=schedule,
        )
        for name, own in variables.items()
    }
