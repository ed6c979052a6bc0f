"""Command lines: config keys and a program's own options, their errors and their help.

Every key of the config is a flag of the same name (``--train.batch_size 16`` or
``--train.batch_size=16``), ``--configs`` takes presets. Entry points add options of their own.
Imports nothing heavy, so that ``--help`` and mistakes are answered at once.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from dreamer.config.config import Config, load_config, preset_refusal
from dreamer.config.schema import DREAMER, Key, Value, find_key, load_schema, number, preset_files
from dreamer.errors import EnvError, UserError, suggest
from dreamer.system.streams import settle, warn
from dreamer.system.threads import has_abandoned_thread


@dataclass(frozen=True)
class Option:
    """An option of one program, beside the config's keys.

    The type is that of `default` (bool, int, float or str); `many` takes one or more words.
    An option left out has its default ([] where `many`).
    """

    name: str
    default: bool | int | float | str
    help: str
    many: bool = False
    required: bool = False
    choices: tuple[Any, ...] = ()
    low: float | None = None

    @property
    def key(self) -> Key:
        """The same as a key, which knows how to check a value."""
        return Key(
            f"--{self.name}", self.default, "", self.help, "", choices=self.choices, low=self.low
        )


@dataclass(frozen=True)
class Parsed:
    """What a command line said.

    Attributes:
      options: the program's own options by name, complete.
      presets: what --configs gave.
      overrides: config keys that were given, checked and typed.
      agent: whose keys they are.
    """

    options: dict[str, Any] = field(default_factory=dict)
    presets: tuple[str, ...] = ()
    overrides: dict[str, Any] = field(default_factory=dict)
    agent: str = DREAMER

    def config(self) -> Config:
        """Returns the config that the command line asks for.

        Raises:
          UserError: as `load_config`.
        """
        return load_config(*self.presets, overrides=self.overrides, agent=self.agent)


@dataclass(frozen=True)
class CommandLine:
    """The command line of one program: ``CommandLine("python -m dreamer.run", "Trains.")``.

    Attributes:
      program: how it is called.
      description: what it does, for --help.
      options: its own options.
      takes_config: whether config keys and --configs are flags too.
      agent: whose keys, where no option called agent says otherwise.
    """

    program: str
    description: str
    options: tuple[Option, ...] = ()
    takes_config: bool = True
    agent: str = DREAMER

    def parse(self, argv: Sequence[str]) -> Parsed:
        """Reads `argv` (without the program's name); --help prints the help and exits.

        Raises:
          UserError: unknown flag, flag twice, missing or bad value, stray word.
        """
        if any(word in ("-h", "--help") for word in argv):
            print(format_help(self), end="")
            sys.exit(0)
        own = {option.name: option for option in self.options}
        flags = _flags(argv)
        agent = "".join(dict(flags).get("agent", [])) if "agent" in own else ""
        keys = load_schema(agent or self.agent) if self.takes_config else {}
        options: dict[str, Any] = {}
        overrides: dict[str, Any] = {}
        presets: tuple[str, ...] = ()
        for name, words in flags:
            if name in own:
                options[name] = _read_option(own[name], words)
            elif name == "configs" and self.takes_config:
                presets = tuple(_some(name, words))
            else:
                key = _find_flag(name, keys, own)
                overrides[name] = key.coerce(_single(name, words, key.value))
        missing = [f"--{o.name}" for o in self.options if o.required and o.name not in options]
        if missing:
            raise UserError(f"{', '.join(missing)} is missing: {self.program} needs it")
        defaults: dict[str, Any] = {o.name: [] if o.many else o.default for o in self.options}
        return Parsed({**defaults, **options}, presets, overrides, agent or self.agent)


def parse_args(
    argv: Sequence[str], program: str, description: str, agent: str = DREAMER
) -> Config:
    """Reads the command line of a program that takes only config keys and --configs.

    Raises:
      UserError: as `CommandLine.parse` and `load_config`.
    """
    return CommandLine(program, description, agent=agent).parse(argv).config()


def run_main(main: Callable[[Sequence[str]], int | None]) -> NoReturn:
    """Runs ``main(argv)`` and exits with its status.

    A user's mistake is one line and its error's status; a failed environment shows its worker's
    traceback before that line. A status other than 0 stands even where nothing can be written.
    """
    try:
        status = main(sys.argv[1:])
    except UserError as error:
        warn(f"error: {' '.join(str(error).split())}")
        status = error.status
    except EnvError as error:
        warn(f"{error}\nerror: {error.message}; {error.advice}")
        status = error.status
    except BrokenPipeError:
        settle()  # The reader (head, a closed pager) has seen enough.
        status = 0
    if status:
        settle()  # A success stays one only if all it printed could be written.
    if has_abandoned_thread():
        os._exit(status or 0)
    sys.exit(status)


def _flags(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Splits words into flags and the words that follow each."""
    flags: list[tuple[str, list[str]]] = []
    seen = set()
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            if name in seen:
                raise UserError(f"--{name} is given twice")
            seen.add(name)
            flags.append((name, [value] if equals else []))
        elif flags:
            flags[-1][1].append(word)
        else:
            raise UserError(f"unexpected word {word!r}: flags are --key value or --key=value")
    return flags


def _find_flag(name: str, keys: Mapping[str, Key], own: Mapping[str, Option]) -> Key:
    if name in keys:
        return keys[name]
    options = [*own, "configs"] if keys else [*own]
    near = suggest(name, options)
    if not keys or (near and near == suggest(name, [*options, *keys])):
        raise UserError(f"unknown option --{name}{near or '; see --help'}")
    return find_key(name, keys)


def _read_option(option: Option, words: list[str]) -> Any:
    if option.many:
        return [option.key.coerce(word) for word in _some(option.name, words)]
    return option.key.coerce(_single(option.name, words, option.default))


def _some(name: str, words: list[str]) -> list[str]:
    if not words:
        raise UserError(f"--{name} needs a value")
    return words


def _single(name: str, words: list[str], default: Any) -> str:
    """Returns the one word of a flag; a switch given bare is true."""
    if not words and isinstance(default, bool):
        return "true"
    if len(_some(name, words)) > 1:
        raise UserError(f"--{name} takes one value, got {len(words)}: {' '.join(words[:5])}")
    return words[0]


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
