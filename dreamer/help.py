"""The text of --help: usage, options, presets, and every key with value, unit and meaning."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from dreamer.config import preset_refusal
from dreamer.schema import DREAMER, Key, Value, load_schema, number, preset_files

if TYPE_CHECKING:
    from dreamer.cli import CommandLine

_LEFT = 34


def format_help(line: CommandLine) -> str:
    """Returns the help of a command line, as wide as the terminal (80 to 120 columns)."""
    width = min(120, max(80, shutil.get_terminal_size().columns))
    usage = f"usage: {line.program}" + (" [options]" if line.options else "")
    if line.takes_config:
        usage += " [--configs PRESET ...] [--key value ...]"
    parts = [usage, "", *textwrap.wrap(line.description, width)]
    rows = [("--help", "Show this text.")]
    rows += [(f"--{own.name} {_example(own.default)}", own.help) for own in line.options]
    if line.takes_config:
        text = "Presets, later beats earlier; a path takes a file of your own."
        rows.append(("--configs PRESET ...", text))
    parts += ["", "options:", *_table(rows, width)]
    if line.takes_config:
        presets = [(name, text) for name, text in _presets(line.agent).items()]
        parts += ["", "presets:", *_table(presets, width)]
        parts += ["", "keys, with their default values:"]
        for rows in _groups(load_schema(line.agent)):
            parts += ["", *_table(rows, width)]
    return "\n".join(parts) + "\n"


def _groups(keys: Mapping[str, Key]) -> Iterable[list[tuple[str, str]]]:
    """Yields the rows of each namespace, the keys without one first."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, key in keys.items():
        group = name.partition(".")[0] if "." in name else ""
        value = f"{_example(key.value)} {key.unit}".strip()
        note = f" One of: {', '.join(str(choice) for choice in key.choices)}." * bool(key.choices)
        groups.setdefault(group, []).append((f"--{name} {value}", key.help + note))
    return groups.values()


def _example(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value or '""'
    return number(value)


def _presets(agent: str) -> dict[str, str]:
    """Returns the presets whose keys an agent has, all where it is Dreamer, each with its
    description: the comment that its file begins with."""
    presets = {}
    for name, path in sorted(preset_files(agent).items()):
        if agent != DREAMER and preset_refusal(name, agent):
            continue
        with path.open(encoding="utf-8") as file:
            presets[name] = file.readline().lstrip("# ").strip()
    return presets


def _table(rows: Iterable[tuple[str, str]], width: int) -> list[str]:
    """Lays out rows of two columns, the right one wrapped."""
    lines = []
    for left, right in rows:
        wrapped = textwrap.wrap(right, width - _LEFT - 2) or [""]
        if len(left) + 2 < _LEFT:
            lines.append(f"  {left:<{_LEFT - 2}}{wrapped.pop(0)}".rstrip())
        else:
            lines.append(f"  {left}")
        lines += [" " * _LEFT + text for text in wrapped]
    return lines
