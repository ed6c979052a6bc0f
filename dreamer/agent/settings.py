"""An agent's settings: the config's sections, typed. configs/defaults.yaml explains the keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dreamer.agent.kl import KLLoss

Sections = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class CoderSettings:
    """Sections encoder and decoder."""

    keys: str
    cnn_depth: int
    mlp_layers: int
    mlp_units: int


@dataclass(frozen=True)
class RSSMSettings:
    kind: str
    stoch: int
    deter: int
    hidden: int
    min_std: float


@dataclass(frozen=True)
class MLPSettings:
    """Section value, and what other sections have besides their own keys."""

    layers: int
    units: int


@dataclass(frozen=True)
class RewardSettings(MLPSettings):
    transform: str


@dataclass(frozen=True)
class DiscountSettings(MLPSettings):
    enabled: bool
    scale: float


@dataclass(frozen=True)
class ActorSettings(MLPSettings):
    distribution: str
    mean_scale: float
    init_std: float
    min_std: float
    gradient: str
    entropy: float
    mode_samples: int


@dataclass(frozen=True)
class BehaviorSettings:
    policy: str
    value: bool
    horizon: int
    gamma: float
    lambda_: float


@dataclass(frozen=True)
class PlannerSettings:
    candidates: int
    num_elites: int
    iterations: int
    horizon: int
    returns: str


@dataclass(frozen=True)
class DisagreementSettings(MLPSettings):
    until: int
    members: int


@dataclass(frozen=True)
class OptimizerSettings:
    model_lr: float
    actor_lr: float
    value_lr: float
    eps: float
    clip: float


@dataclass(frozen=True)
class ExploreSettings:
    kind: str
    noise_scale: float
    final: float
    decay_steps: int
    unit: str


@dataclass(frozen=True)
class ModelSettings:
    """The sections that make a world model.

    Attributes:
        representation: loss.representation, the name of a representation loss.
        representation_settings: The section of that name, if there is one: keyword arguments.
        kl: The other keys of section loss.
    """

    encoder: CoderSettings
    decoder: CoderSettings
    rssm: RSSMSettings
    reward: RewardSettings
    discount: DiscountSettings
    representation: str
    representation_settings: Mapping[str, Any]
    kl: KLLoss

    @classmethod
    def from_sections(cls, sections: Sections) -> ModelSettings:
        """Takes what it needs of the config's sections."""
        loss = dict(sections["loss"])
        representation = loss.pop("representation")
        return cls(
            CoderSettings(**sections["encoder"]),
            CoderSettings(**sections["decoder"]),
            RSSMSettings(**sections["rssm"]),
            RewardSettings(**sections["reward"]),
            DiscountSettings(**sections["discount"]),
            representation,
            sections.get(representation, {}),
            KLLoss(**loss),
        )


@dataclass(frozen=True)
class AgentSettings:
    """The sections that make Dreamer's agent."""

    model: ModelSettings
    actor: ActorSettings
    value: MLPSettings
    behavior: BehaviorSettings
    planner: PlannerSettings
    disagreement: DisagreementSettings
    optimizer: OptimizerSettings
    explore: ExploreSettings

    @classmethod
    def from_sections(cls, sections: Sections) -> AgentSettings:
        """Takes what it needs of the config's sections."""
        return cls(
            ModelSettings.from_sections(sections),
            ActorSettings(**sections["actor"]),
            MLPSettings(**sections["value"]),
            BehaviorSettings(**sections["behavior"]),
            PlannerSettings(**sections["planner"]),
            DisagreementSettings(**sections["disagreement"]),
            OptimizerSettings(**sections["optimizer"]),
            ExploreSettings(**sections["explore"]),
        )
