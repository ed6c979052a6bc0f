"""The keys of the config, and the values that each key takes, as configs/defaults.yaml says them.

Dreamer has all keys of that file. Another agent has a file configs/agents/<agent>.yaml in the same
format, with its own keys, other defaults for some common keys, and a list `without` of the keys
that it does not have.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar

from dreamer.errors import UserError, suggest
from dreamer.io.yaml_files import read_yaml

Value = bool | int | float | str
DREAMER = "dreamer"
_OF_THE_AGENT = "agent"  # names all of Dreamer's groups, in defaults.yaml and in `without`
_LARGEST = 1_000_000_000_000  # the bound of whole numbers without a bound of their own
_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
# Names under which other programs have the length of training.
_LENGTH = re.compile(r"(train\.)?(n_|num_|max_|total_)?(episodes|epochs|timesteps|frames)")
_added: list[Path] = []


@dataclass(frozen=True)
class Key:
    """One key of the config, or one option of a program; its values have the default's type."""

    name: str  # dotted
    value: Value  # the default
    help: str  # what the key means
    unit: str = ""  # what a number counts; "" for none
    source: str = ""  # where the default value comes from; "" for an option
    choices: Sequence[Value] = ()  # the only values allowed; empty for any
    min: float = -math.inf  # inclusive
    max: float = math.inf  # inclusive
    above: float = -math.inf  # exclusive
    prefix: ClassVar[str] = ""  # of the name in messages
    pattern: bool = False  # whether the text must be a regular expression

    def coerce(self, value: Any, where: str = "") -> Value:
        """Returns a value, typed or text, in this key's type; UserError if the key refuses it.

        The message says `where` the value comes from, such as " in preset 'x'".
        """
        typed, label = _convert(value, type(self.value)), f"{self.prefix}{self.name}{where}"
        if typed is None:
            raise UserError(f"{label} must be {_TYPES[type(self.value)]}, not {_show(value)}")
        if expected := self._expected(typed):
            near = suggest(str(typed), map(str, self.choices))
            raise UserError(f"{label} must be {expected}, not {_show(typed)}{near}")
        return typed

    def _expected(self, value: Value) -> str:
        """Returns what the key expects, if `value` (of its type) does not meet this; else ""."""
        if self.choices:
            names = ", ".join(map(str, self.choices))
            return "" if value in self.choices else f"one of {names}"
        if isinstance(value, str):
            try:
                re.compile(value if self.pattern else "")
            except re.error as error:
                return f"a regular expression ({error})"
            return "" if value.isprintable() else "printable text"
        if value < self.min:
            return f"at least {number(self.min)}"
        if value <= self.above:
            return f"above {number(self.above)}"
        most = min(self.max, _LARGEST) if isinstance(value, int) else self.max
        return f"at most {number(most)}" if value > most else ""


@dataclass(frozen=True)
class AgentFile:
    """The content of configs/agents/<agent>.yaml; empty for Dreamer."""

    # The agent's own keys, and common keys with other fields, by dotted name.
    entries: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    without: Set[str] = frozenset()  # keys and groups of defaults.yaml that the agent lacks
    # Values by dotted name, for each pattern of task names (``dmc_walker_*``).
    tasks: Mapping[str, dict[str, Value]] = field(default_factory=dict)


def add_configs(folder: str | os.PathLike[str]) -> None:
    """Adds a folder of configs from outside this package, in this process.

    The folder may hold ``agents/<agent>.yaml``, ``presets/<preset>.yaml``,
    ``presets/<agent>/<preset>.yaml``, and ``defaults.yaml`` with more keys for Dreamer. An entry
    there for a key that exists adds its `choices` and replaces the other fields it has.
    """
    path = Path(folder).resolve()
    if path not in _added:
        _added.append(path)
        for cached in (load_schema, agent_file, agent_names, read_defaults):
            cached.cache_clear()


def find_configs() -> Path:
    """Returns the folder with defaults.yaml, agents/ and presets/.

    An installed wheel has the folder inside the package; in a checkout it is beside the package.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "defaults.yaml").is_file():
            return folder
    raise UserError(f"configs/defaults.yaml is missing beside {package}: install dreamer again")


@functools.cache
def load_schema(agent: str = DREAMER) -> Mapping[str, Key]:
    """Returns an agent's keys by dotted name, in the order of configs/defaults.yaml.

    Keys that only this agent has come last. Raises UserError if there is no such agent.
    """
    common, own = read_defaults()[0], agent_file(agent)
    keys = {}
    for name, entry in {**common, **own.entries}.items():
        if name in own.entries or not {name, name.partition(".")[0]} & own.without:
            keys[name] = Key(name, **{**common.get(name, {}), **entry})
            keys[name].coerce(keys[name].value)
    return keys


@functools.cache
def agent_file(agent: str) -> AgentFile:
    """Reads an agent's own file; raises UserError if there is no such agent."""
    if agent == DREAMER:
        return AgentFile()
    if agent not in agent_names():
        near = suggest(agent, agent_names()) or f"; there are {', '.join(agent_names())}"
        raise UserError(f"unknown agent {agent!r}{near}")
    paths = [folder / "agents" / f"{agent}.yaml" for folder in (find_configs(), *_added)]
    tree = read_yaml(next(path for path in paths if path.is_file()))
    without, tasks = set(tree.pop("without", [])), tree.pop("tasks", {})
    if _OF_THE_AGENT in without:
        without |= set(read_defaults()[1])
    return AgentFile(_entries(tree), without, tasks)


@functools.cache
def agent_names() -> list[str]:
    """Returns the names of the agents that have keys: Dreamer, then the others."""
    folders = find_configs(), *_added
    return [DREAMER, *sorted({p.stem for folder in folders for p in folder.glob("agents/*.yaml")})]


def preset_files(agent: str = DREAMER) -> dict[str, Path]:
    """Returns the presets' files by name. An agent's own preset replaces a general one."""
    folders = [folder / "presets" for folder in (find_configs(), *_added)]
    found = [*(folder / inner for inner in ("", agent) for folder in folders)]
    return {path.stem: path for folder in found for path in folder.glob("*.yaml")}


def task_values(agent: str, task: str, given: Iterable[str] = ()) -> dict[str, Value]:
    """Returns the values that an agent's file has for a task, without the keys that are `given`.

    At most one pattern of the file fits each task. Raises UserError if values differ between tasks.
    """
    patterns = agent_file(agent).tasks
    found: list[dict[str, Value]] = []
    for name in task.split(","):
        values = next((patterns[p] for p in patterns if fnmatchcase(name.strip(), p)), {})
        found.append({key: value for key, value in values.items() if key not in given})
    if any(values != found[0] for values in found):
        flags = sorted({f"--{key}" for values in found for key in values})
        raise UserError(f"{agent} has different values for {task}: give {', '.join(flags)}")
    return found[0]


def find_key(name: str, keys: Mapping[str, Key], where: str = "") -> Key:
    """Returns the key of a dotted name.

    If there is none, the UserError names the group's members, the agents that have it, or the
    nearest name.
    """
    if name in keys:
        return keys[name]
    members = [key for key in keys if key.startswith(f"{name}.")]
    if members:
        raise UserError(f"{name!r}{where} is a group of keys, give one of {', '.join(members)}")
    owners = [
        agent for agent in agent_names()
        if any(f"{key}.".startswith(f"{name}.") for key in load_schema(agent))
    ]  # fmt: skip
    if owners:
        raise UserError(
            f"{name!r}{where} is no key of this agent; these have it: {', '.join(owners)}"
        )
    if _LENGTH.fullmatch(name):
        raise UserError(
            f"unknown key {_show(name)}{where}; the length of training is given in environment "
            "frames, action repeats included: steps. For episodes, multiply by their frames"
        )
    near = suggest(name, keys) or "; --help lists all keys"
    raise UserError(f"unknown key {_show(name)}{where}{near}")


def flatten(tree: Mapping[str, Any], keys: Iterable[str], where: str = "") -> dict[str, Any]:
    """Turns a tree of groups into dotted names; UserError if a group of `keys` is no mapping."""
    groups = {key.partition(".")[0] for key in keys if "." in key}
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if name not in groups:
            flat[name] = value
        elif isinstance(value, Mapping):
            flat.update({f"{name}.{inner}": leaf for inner, leaf in value.items()})
        else:
            raise UserError(f"{name!r}{where} is a group of keys, not {_show(value)}")
    return flat


def number(value: float) -> str:
    """Returns a number in its short form: 5e6 for 5000000, but 1000 as it is."""
    if isinstance(value, bool) or not math.isfinite(value):
        return str(value)
    if value != 0 and (abs(value) >= 10_000 or abs(value) < 0.001):
        mantissa, exponent = f"{value:.12e}".split("e")
        short = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
        if len(short) < len(str(value)):
            return short
    return str(value)


@functools.cache
def read_defaults() -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Returns the entries of all defaults.yaml by dotted name, and their lists `agent`."""
    entries: dict[str, dict[str, Any]] = {}
    of_the_agent: list[str] = []
    for path in [folder / "defaults.yaml" for folder in (find_configs(), *_added)]:
        if not path.is_file():
            continue
        tree = read_yaml(path)
        of_the_agent += tree.pop(_OF_THE_AGENT, [])
        for name, entry in _entries(tree).items():
            known = entries.get(name, {})
            entries[name] = {**known, **entry}
            if "choices" in known:
                entries[name]["choices"] = [*known["choices"], *entry.get("choices", [])]
    return entries, of_the_agent


def _entries(tree: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The entries of a file of keys by dotted name."""
    found: dict[str, dict[str, Any]] = {}
    for name, entry in tree.items():
        if all(isinstance(leaf, Mapping) for leaf in entry.values()):  # a group of entries
            found.update({f"{name}.{inner}": leaf for inner, leaf in entry.items()})
        else:
            found[name] = entry
    return found


def _convert(value: Any, kind: type) -> Value | None:
    """Returns the value converted to `kind`; None if that is not possible."""
    if kind is bool and isinstance(value, str):
        value = {"true": True, "false": False}.get(value.strip().lower())
    if kind in (bool, str):
        return value if isinstance(value, kind) else None
    if isinstance(value, bool) or not isinstance(value, (str, Real)):
        return None
    if isinstance(value, str) and (short := re.fullmatch(r"([\d.]+) ?([kM])", value.strip())):
        value = f"{short[1]}e{3 if short[2] == 'k' else 6}"
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number) or (kind is int and not number.is_integer()):
        return None
    return kind(number)


def _show(value: Any) -> str:
    """The value for a one-line message, cut if it is long."""
    if isinstance(value, (Mapping, list, tuple)):
        return f"a {'mapping' if isinstance(value, Mapping) else 'list'}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
