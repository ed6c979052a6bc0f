"""The agents that can be trained here, and the functions that make them.

To add an agent, write its module and its keys (configs/agents/<name>.yaml), and add its entry to
AGENTS. An agent outside of this repository calls `register` instead.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass

from dreamer.config.config import Config
from dreamer.config.schema import DREAMER, add_configs
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.training.build import MakeExperience
from dreamer.training.interfaces import TrainableAgent


@dataclass(frozen=True)
class Entry:
    """Where an agent's functions or classes are: "module:name", imported when needed."""

    agent: str  # a `MakeAgent` of dreamer.training.build
    experience: str = ""  # a `MakeExperience`; empty: sequences from the replay, as Dreamer


AGENTS = {
    "a3c": Entry("baselines.a3c.a3c:A3C", "baselines.a3c.rounds:make_experience"),
    "constant": Entry("baselines.baseline:Constant"),
    "d4pg": Entry("baselines.d4pg:D4PG", "baselines.off_policy:make_experience"),
    "dqn": Entry("baselines.dqn:DQN", "baselines.off_policy:make_experience"),
    "latent_sac": Entry("baselines.latent_sac:make"),
    "planet": Entry("baselines.planet:make"),
    "random": Entry("baselines.baseline:Random"),
}


def register(name: str, entry: Entry, configs: str | os.PathLike[str]) -> None:
    """Adds an agent from outside this package, in this process.

    Args:
        name: The agent's name.
        entry: Where its functions are.
        configs: A folder with agents/<name>.yaml, and the agent's presets in presets/<name>/.
    """
    add_configs(configs)
    AGENTS[name] = entry


def make_agent(config: Config, obs_space: Mapping[str, Space], act_space: Space) -> TrainableAgent:
    """Returns a config's agent; UserError if it is Dreamer's, or cannot act in these spaces."""
    if config.agent == DREAMER:
        raise UserError("this is a run of Dreamer itself: use python -m dreamer.run or .evaluate")
    return pkgutil.resolve_name(AGENTS[config.agent].agent)(config, obs_space, act_space)


def experience_of(agent: str) -> MakeExperience | None:
    """Returns the function that makes an agent's experience; None: replayed sequences."""
    place = AGENTS[agent].experience
    # The module imports TensorFlow, so only the call imports the module.
    return (lambda setup: pkgutil.resolve_name(place)(setup)) if place else None
