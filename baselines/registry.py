"""From an agent's name to what makes it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from dreamer.config.config import Config
from dreamer.config.schema import DREAMER, agent_names
from dreamer.envs.spec import Space
from dreamer.errors import UserError, suggest

_HOMES = {"random": "baselines.fixed", "constant": "baselines.fixed"}


def names() -> list[str]:
    """The agents that can be trained here."""
    return [name for name in agent_names() if name != DREAMER]


def take_agent(argv: list[str]) -> tuple[str, list[str]]:
    """Splits ``--agent NAME`` (or ``--agent=NAME``) off a command line.

    Returns:
        The name, and the other words; the name is empty where there is none.
    Raises:
        UserError: no such agent, or the flag twice or without a name.
    """
    rest, found = [], []
    words = iter(argv)
    for word in words:
        if word == "--agent":
            found.append(next(words, ""))
        elif word.startswith("--agent="):
            found.append(word.partition("=")[2])
        else:
            rest.append(word)
    if len(found) > 1:
        raise UserError("--agent is given twice")
    if found and found[0] not in names():
        near = suggest(found[0], names()) if found[0] else ""
        raise UserError(f"--agent is {found[0]!r}{near}; expected one of {', '.join(names())}")
    return (found[0] if found else ""), rest


def module_of(agent: str) -> ModuleType:
    """The module that holds an agent; only this one is imported."""
    return importlib.import_module(_HOMES.get(agent, f"baselines.{agent}"))


def make_agent(config: Config, obs_space: Mapping[str, Space], act_space: Space) -> Any:
    """The agent that a config describes, for an environment's spaces.

    Raises:
        UserError: the run is Dreamer's, or the agent cannot act in these spaces.
    """
    if config.agent == DREAMER:
        raise UserError("this is a run of Dreamer itself: use python -m dreamer.run or .evaluate")
    return module_of(config.agent).make(config, obs_space, act_space)
