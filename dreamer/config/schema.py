"""What keys there are, and which values each takes: the reading of configs/defaults.yaml.

Another agent than Dreamer (``configs/agents/<agent>.yaml``, in the same format) has keys of its
own, other defaults for some of the common ones, and none of those it lists under ``without``.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from dreamer.errors import UserError, suggest
from dreamer.io.yaml_files import read_yaml

Value = bool | int | float | str
DREAMER = "dreamer"
_LARGEST = 1_000_000_000_000  # for whole numbers without a bound of their own: beyond is a slip
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_FIELDS = {"value", "unit", "help", "source", "choices", "min", "max", "above", "pattern"}


@dataclass(frozen=True)
class Key:
    """One key of the config: its default and what may be put in its place.

    `low` and `high` are inclusive bounds, `above` an exclusive lower one; `pattern` says that the
    value is a regular expression. The type is that of the default.
    """

    name: str
    value: Value
    unit: str
    help: str
    source: str
    choices: tuple[Value, ...] = ()
    low: float | None = None
    high: float | None = None
    above: float | None = None
    pattern: bool = False

    def coerce(self, value: Any, where: str = "") -> Value:
        """Returns `value` (typed, or text as typed on a command line) in this key's type.

        Raises:
          UserError: wrong type, not among the choices, or out of range; `where` (" in preset
            'x'") says where the value came from.
        """
        typed = _convert(value, type(self.value))
        if typed is None:
            kind = _WORDS[type(self.value)]
            raise UserError(f"{self.name}{where} must be {kind}, not {_show(value)}")
        if self.choices and typed not in self.choices:
            options = [str(choice) for choice in self.choices]
            raise UserError(
                f"{self.name}{where} must be one of {', '.join(options)}, not {_show(value)}"
                + suggest(str(typed), options)
            )
        self._check_bounds(typed, where)
        return typed

    def _check_bounds(self, typed: Value, where: str) -> None:
        if isinstance(typed, str):
            if not typed.isprintable():
                raise UserError(f"{self.name}{where} must be printable text, not {_show(typed)}")
            if self.pattern:
                _check_pattern(self.name + where, typed)
            return
        if self.low is not None and typed < self.low:
            raise UserError(f"{self.name}{where} must be at least {number(self.low)}, not {typed}")
        if self.high is not None and typed > self.high:
            raise UserError(f"{self.name}{where} must be at most {number(self.high)}, not {typed}")
        if self.above is not None and typed <= self.above:
            raise UserError(f"{self.name}{where} must be above {number(self.above)}, not {typed}")


def number(value: float) -> str:
    """Returns a number the short way: 5e6 rather than 5000000, but 1000 as it is."""
    if isinstance(value, bool) or not math.isfinite(value):
        return str(value)
    if value != 0 and (abs(value) >= 10_000 or abs(value) < 0.001):
        mantissa, exponent = f"{value:.12e}".split("e")
        short = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
        if len(short) < len(str(value)):
            return short
    return str(value)


def find_configs() -> Path:
    """Returns the folder with defaults.yaml and presets/.

    An installed wheel carries it inside the package; in a checkout it lies beside the package.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "defaults.yaml").is_file():
            return folder
    raise UserError(f"configs/defaults.yaml is missing beside {package}: install dreamer again")


@functools.cache
def load_schema(agent: str = DREAMER) -> Mapping[str, Key]:
    """Returns an agent's keys by dotted name, in the order of configs/defaults.yaml, its own last.

    Raises:
      UserError: there is no such agent.
    """
    entries = _entries(read_yaml(find_configs() / "defaults.yaml"))
    if agent != DREAMER:
        if agent not in agent_names():
            near = suggest(agent, agent_names()) or f"; there are {', '.join(agent_names())}"
            raise UserError(f"unknown agent {agent!r}{near}")
        tree = _agent_file(agent)
        without = set(tree.pop("without", []))
        entries = {
            name: entry for name, entry in entries.items()
            if not {name, name.partition(".")[0]} & without
        }  # fmt: skip
        for name, entry in _entries(tree).items():
            entries[name] = {**entries.get(name, {}), **entry}
    return {name: _read_key(name, entry) for name, entry in entries.items()}


@functools.cache
def own_keys(agent: str) -> frozenset[str]:
    """Returns the keys that an agent's own file defines, or gives another default."""
    if agent == DREAMER:
        return frozenset()
    tree = _agent_file(agent)
    tree.pop("without", None)
    return frozenset(_entries(tree))


def task_values(agent: str, task: str, settled: Iterable[str] = ()) -> dict[str, Value]:
    """Returns what an agent's file says of a task, or of each of ``a,b,c``, by dotted name.

    Its ``tasks`` are patterns of names (``dmc_walker_*``), of which one fits at most.

    Raises:
      UserError: it says different things of the tasks, and the key is not `settled` otherwise.
    """
    if agent == DREAMER:
        return {}
    tasks = read_yaml(find_configs() / "agents" / f"{agent}.yaml").get("tasks", {})
    of_each: dict[str, dict[str, Value]] = {}
    for name in (name.strip() for name in task.split(",")):
        fitting = (values for pattern, values in tasks.items() if fnmatchcase(name, pattern))
        values: dict[str, Value] = next(fitting, {})
        of_each[name] = {key: value for key, value in values.items() if key not in settled}
    for key in sorted({key for values in of_each.values() for key in values}):
        found = {name: values.get(key, "the suite's") for name, values in of_each.items()}
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{name} {value}" for name, value in found.items())
            raise UserError(f"{agent} has another {key} for each task ({listed}): give --{key}")
    return next(iter(of_each.values()))


def _agent_file(agent: str) -> dict[str, Any]:
    """Returns an agent's keys, and under ``without`` those of Dreamer that it lacks."""
    tree = read_yaml(find_configs() / "agents" / f"{agent}.yaml")
    tree.pop("tasks", None)
    return tree


@functools.cache
def agent_names() -> list[str]:
    """Returns the names of the agents that have keys: Dreamer, then the others."""
    return [DREAMER, *sorted(path.stem for path in (find_configs() / "agents").glob("*.yaml"))]


def preset_files(agent: str = DREAMER) -> dict[str, Path]:
    """Returns the presets' files by name; an agent's own come before general ones."""
    folder = find_configs() / "presets"
    found = [*folder.glob("*.yaml"), *(folder / agent).glob("*.yaml")]
    return {path.stem: path for path in found}


def _entries(tree: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the entries of a file of keys by dotted name."""
    found: dict[str, dict[str, Any]] = {}
    for name, entry in tree.items():
        # A group may have a key of that name too.
        if not isinstance(entry.get("value", {}), Mapping):
            found[name] = entry
        else:
            found.update({f"{name}.{inner}": leaf for inner, leaf in entry.items()})
    return found


def find_key(name: str, keys: Mapping[str, Key], where: str = "") -> Key:
    """Returns the key called `name`.

    Raises:
      UserError: there is none; names the nearest, the members where `name` is a group, or the
        agents that have it where these keys' own agent does not.
    """
    if name in keys:
        return keys[name]
    members = [key for key in keys if key.startswith(f"{name}.")]
    if members:
        raise UserError(f"{name!r}{where} is a group of keys, give one of {', '.join(members)}")
    owners = [agent for agent in agent_names() if _has(load_schema(agent), name)]
    if owners:
        raise UserError(f"{name!r}{where} is nothing of this agent, but of {', '.join(owners)}")
    # A key's last word alone (batch_size) is the likeliest slip: it beats mere likeness.
    tails = [key for key in keys if key.rpartition(".")[2] == name.rpartition(".")[2]]
    near = f"; did you mean {tails[0]!r}?" if tails else suggest(name, keys)
    hint = near or "; --help lists all keys"
    raise UserError(f"unknown key {_show(name)}{where}{hint}")


def _has(keys: Iterable[str], name: str) -> bool:
    """Whether there is a key, or a group of keys, of that name."""
    return any(key == name or key.startswith(f"{name}.") for key in keys)


def flatten(tree: Mapping[str, Any], keys: Iterable[str], where: str = "") -> dict[str, Any]:
    """Turns a tree of namespaces into dotted names; a group of `keys` must be a mapping."""
    groups = {key.partition(".")[0] for key in keys if "." in key}
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if name in groups:
            if not isinstance(value, Mapping):
                raise UserError(f"{name!r}{where} is a group of keys, not {_show(value)}")
            flat.update({f"{name}.{inner}": leaf for inner, leaf in value.items()})
        else:
            flat[name] = value
    return flat


def _read_key(name: str, entry: Mapping[str, Any]) -> Key:
    """Reads one entry of defaults.yaml; a slip there is the project's own, hence ValueError."""
    missing = {"value", "unit", "help", "source"} - set(entry)
    foreign = set(entry) - _FIELDS
    if missing or foreign:
        raise ValueError(f"defaults.yaml, {name}: missing {missing}, unknown {foreign}")
    key = Key(
        name=name,
        value=entry["value"],
        unit=entry["unit"],
        help=entry["help"],
        source=entry["source"],
        choices=tuple(entry.get("choices", ())),
        low=entry.get("min"),
        high=entry.get("max", _LARGEST if type(entry["value"]) is int else None),
        above=entry.get("above"),
        pattern=entry.get("pattern", False),
    )
    key.coerce(key.value)
    return key


def _convert(value: Any, kind: type) -> Value | None:
    """Returns `value` as a `kind`, or None where it is none."""
    if kind is str:
        return value if isinstance(value, str) else None
    if kind is bool:
        if isinstance(value, str):
            return {"true": True, "false": False}.get(value.strip().lower())
        return value if isinstance(value, bool) else None
    if isinstance(value, str):
        try:
            value = int(value) if re.fullmatch(r"\s*[+-]?\d{1,18}\s*", value) else float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return None
    if kind is int:
        if isinstance(value, Integral):
            return int(value)
        return int(float(value)) if float(value).is_integer() else None
    return float(value)


def _check_pattern(name: str, text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise UserError(f"{name} is no regular expression: {error} in {_show(text)}") from None


def _show(value: Any) -> str:
    """Returns the value for a one-line message, cut where it is long."""
    if isinstance(value, (Mapping, list, tuple)):
        return f"a {'mapping' if isinstance(value, Mapping) else 'list'}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
