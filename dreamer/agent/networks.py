"""What an agent is made of: its networks and their optimizers, as the config says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from dreamer.agent.world_model import WorldModel
from dreamer.errors import UserError
from dreamer.nets.actor import Actor, choose_distribution
from dreamer.nets.ensemble import Ensemble
from dreamer.nets.value import Value
from dreamer.ops.optimizers import Optimizer

Section = Mapping[str, Any]


@dataclass(frozen=True)
class Parts:
    """The networks. All but the model may be None, where the agent has no use for them.

    Attributes:
        model: World model.
        actor, value: Of the task.
        ensemble: Whose disagreement `explorer` seeks, with `explorer_value`.
    """

    model: WorldModel
    actor: Actor | None = None
    value: Value | None = None
    ensemble: Ensemble | None = None
    explorer: Actor | None = None
    explorer_value: Value | None = None

    def named(self) -> dict[str, keras.layers.Layer]:
        """Those that there are, by the names that checkpoints and optimizers go by."""
        return {name: part for name, part in vars(self).items() if part is not None}


def make_parts(
    model: WorldModel,
    actions: int,
    discrete: bool,
    dtype: keras.DTypePolicy,
    *,
    actor: Section,
    value: Section,
    behavior: Section,
    planner: Section,
    disagreement: Section,
) -> Parts:
    """Makes the networks that act and judge, on top of a world model.

    Args:
        model: Built already.
        actions: A.
        discrete: Whether actions are one-hot.
        dtype: Of the networks.
        actor, value, behavior, planner, disagreement: Sections of the config.
    """
    size = model.rssm.feat_size
    own = {k: v for k, v in actor.items() if k not in ("mode_samples", "gradient", "entropy")}
    own["distribution"] = choose_distribution(own["distribution"], discrete)
    planning = behavior["policy"] == "planner"

    def make_actor(name: str) -> Actor:
        return Actor(actions, **own, dtype=dtype, name=name)

    def make_value(name: str) -> Value:
        return Value(**value, dtype=dtype, name=name)

    parts: dict[str, keras.layers.Layer] = {}
    if not planning:
        parts["actor"] = make_actor("actor")
    if planner["returns"] == "lambda" if planning else behavior["value"]:
        parts["value"] = make_value("value")
    if disagreement["until"]:
        parts["explorer"] = make_actor("explorer")
        parts["explorer_value"] = make_value("explorer_value")
    for part in parts.values():
        part.build((None, size))
    if disagreement["until"]:
        parts["ensemble"] = _make_ensemble(model, actions, disagreement, dtype)
    return Parts(model, **parts)


def _make_ensemble(
    model: WorldModel, actions: int, disagreement: Section, dtype: keras.DTypePolicy
) -> Ensemble:
    rssm = model.rssm
    if not rssm.stoch_size:
        raise UserError(
            "disagreement.until needs a latent to predict, which rssm.kind deterministic_only has "
            "not; choose another rssm.kind"
        )
    sizes = {k: disagreement[k] for k in ("members", "layers", "units")}
    ensemble = Ensemble(**sizes, outputs=rssm.stoch_size, dtype=dtype, name="ensemble")
    ensemble.build((None, rssm.feat_size + actions))
    return ensemble


def make_optimizers(parts: Parts, section: Section, scale_loss: bool) -> dict[str, Optimizer]:
    """An optimizer for each part; the explorer's learn at the rates of the task's.

    Args:
        parts: What there is to train.
        section: ``optimizer`` of the config.
        scale_loss: Whether losses are scaled dynamically (float16).
    """
    return {
        name: Optimizer(
            part.trainable_variables,
            section[f"{_RATES.get(name, name)}_lr"],
            eps=section["eps"],
            clip=section["clip"],
            scale_loss=scale_loss,
            apart=parts.model.diagnostic_variables if part is parts.model else (),
            name=f"{name}_adam",
        )
        for name, part in parts.named().items()
    }


_RATES = {"explorer": "actor", "explorer_value": "value", "ensemble": "model"}
