"""Command lines: keys of the config, presets, and a program's own options.

Each key of the config is a flag of the same name (``--train.batch_size 16`` or
``--train.batch_size=16``), and ``--configs`` takes presets. This module imports nothing heavy, so
that ``--help`` and usage errors are quick.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from dreamer.config.config import Config, load_config, preset_refusal
from dreamer.config.schema import DREAMER, Key, Value, find_key, load_schema, number, preset_files
from dreamer.errors import EnvError, UserError, suggest
from dreamer.system.streams import settle, warn
from dreamer.system.threads import has_abandoned_thread

_COLUMN = 34  # of the help texts


@dataclass(frozen=True)
class Option:
    """An option of one program, which is no key of the config.

    Attributes:
        name: Without the dashes.
        default: Value if the option is not given ([] with `many`). The option has its type.
        help: What the option means.
        many: Whether it takes one or more words.
        required: Whether it must be given.
        choices: The only values allowed; () for any.
        low: Least value.
    """

    name: str
    default: bool | int | float | str
    help: str
    many: bool = False
    required: bool = False
    choices: tuple[Any, ...] = ()
    low: float | None = None

    def read(self, words: list[str]) -> Any:
        """Returns the option's value from the words after its flag."""
        name = f"--{self.name}"
        key = Key(name, self.default, "", self.help, "", choices=self.choices, low=self.low)
        if self.many:
            return [key.coerce(word) for word in _one_or_more(self.name, words)]
        return key.coerce(_one(self.name, words, self.default))


@dataclass(frozen=True)
class Parsed:
    """What a command line says.

    Attributes:
        options: The program's own options by name, with their defaults.
        presets: Presets of --configs.
        overrides: The keys given, checked and typed.
        agent: Whose keys they are.
    """

    options: dict[str, Any] = field(default_factory=dict)
    presets: tuple[str, ...] = ()
    overrides: dict[str, Any] = field(default_factory=dict)
    agent: str = DREAMER

    def config(self) -> Config:
        """Returns the config that the command line describes.

        Raises:
            UserError: As `load_config`.
        """
        return load_config(*self.presets, overrides=self.overrides, agent=self.agent)


@dataclass(frozen=True)
class CommandLine:
    """The command line of one program: ``CommandLine("python -m dreamer.run", "Trains.")``.

    Attributes:
        program: How the program is called.
        description: What it does, for --help.
        options: Its own options. An option called agent chooses whose keys are flags.
        takes_config: Whether the keys of the config and --configs are flags too.
        agent: Whose keys are flags without an option called agent; "" for none.
    """

    program: str
    description: str
    options: tuple[Option, ...] = ()
    takes_config: bool = True
    agent: str = DREAMER

    def parse(self, argv: Sequence[str]) -> Parsed:
        """Reads `argv`, without the program's name. --help prints the help and exits.

        Raises:
            UserError: An unknown flag, a flag given twice, a missing or bad value, or a word that
                belongs to no flag.
        """
        own = {option.name: option for option in self.options}
        words = _join_negative_numbers(argv)
        agent = self.agent
        if "agent" in own:
            first = vars(_Parser().take("agent").parse_known_args(words)[0])
            agent = own["agent"].read(first["agent"]) if "agent" in first else agent
        keys = load_schema(agent) if agent and self.takes_config else {}
        keys = {name: key for name, key in keys.items() if name not in own}
        if {"-h", "--help"} & set(argv):
            print(format_help(self, agent, keys), end="")
            sys.exit(0)
        configs = ["configs"] if keys else []
        found, extra = _Parser().take(*own, *keys, *configs).parse_known_args(words)
        if extra and (agent or not self.takes_config):  # without its agent no key is known
            _refuse(extra[0], [*own, *configs], keys)
        given = vars(found)
        presets: tuple[str, ...] = ()
        if "configs" in given and "configs" not in own:
            presets = tuple(_one_or_more("configs", given.pop("configs")))
        options = {name: own[name].read(given.pop(name)) for name in own if name in given}
        overrides = {k: keys[k].coerce(_one(k, words, keys[k].value)) for k, words in given.items()}
        for option in self.options:
            if option.required and option.name not in options:
                one_of = f": expected one of {', '.join(option.choices)}" if option.choices else ""
                text = f"--{option.name} is missing{one_of or f': {self.program} needs it'}"
                raise UserError(text)
        defaults: dict[str, Any] = {o.name: [] if o.many else o.default for o in self.options}
        return Parsed({**defaults, **options}, presets, overrides, agent or DREAMER)


def parse_args(
    argv: Sequence[str], program: str, description: str, agent: str = DREAMER
) -> Config:
    """Reads the command line of a program that takes only keys of the config and --configs.

    Raises:
        UserError: As `CommandLine.parse` and `load_config`.
    """
    return CommandLine(program, description, agent=agent).parse(argv).config()


def run_main(main: Callable[[Sequence[str]], int | None]) -> NoReturn:
    """Runs ``main(argv)`` and exits with its status.

    A user's error is printed as one line; the exit status is the error's. Before the line of an
    environment's error comes its worker's traceback. A status other than 0 stays, even if nothing
    can be printed.
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
        settle()  # the reader, such as head, has ended
        status = 0
    if status:
        settle()  # a success is one only if everything could be printed
    if has_abandoned_thread():
        os._exit(status or 0)
    sys.exit(status)


class _StoreOnce(argparse.Action):
    """Stores the words of a flag, which may be given once."""

    def __call__(self, parser, namespace, values, option_string=None):
        if hasattr(namespace, self.dest):
            raise UserError(f"--{self.dest} is given twice")
        setattr(namespace, self.dest, values)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal, 80 to 120 columns; a metavar is shown as it is."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=_COLUMN, width=_width())

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return str(action.metavar)


class _Parser(argparse.ArgumentParser):
    """Flags by name, each with any number of words. The flags' readers check their number."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            **settings, add_help=False, allow_abbrev=False, formatter_class=_Formatter,
            argument_default=argparse.SUPPRESS,
        )  # fmt: skip

    def take(self, *names: str) -> _Parser:
        """Adds flags; returns this parser."""
        for name in names:
            self.add_argument(f"--{name}", dest=name, nargs="*", action=_StoreOnce)
        return self

    def describe(self, title: str | None, rows: Mapping[str, str]) -> None:
        """Adds a group of flags, by flag and example (``--steps 5e6 steps``), with their help."""
        group = self.add_argument_group(title)
        for row, text in rows.items():
            flag, _, example = row.partition(" ")
            group.add_argument(flag, nargs="*", metavar=example, help=text.replace("%", "%%"))

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def format_help(line: CommandLine, agent: str, keys: Mapping[str, Key]) -> str:
    """Returns the help of a command line: options, presets, and keys with their defaults.

    Args:
        line: The command line.
        agent: Whose presets it takes.
        keys: The keys that are flags.
    """
    usage = line.program + (" [options]" if line.options else "")
    usage += " [--configs PRESET ...] [--key value ...]" if line.takes_config else ""
    parser = _Parser(usage=usage, description=textwrap.fill(line.description, _width()))
    rows = {"--help": "Show this text."}
    for option in line.options:
        rows[f"--{option.name} {_example(option.default)}"] = option.help + _one_of(option.choices)
    if keys:
        text = "Presets; a later one replaces values of earlier ones. A path is your own file."
        rows["--configs PRESET ..."] = text
    parser.describe("options", rows)
    if keys:
        parser.add_argument_group("presets", _presets(agent))
        groups: dict[str, dict[str, str]] = {}
        for name, key in keys.items():
            row = f"--{name} {_example(key.value)} {key.unit}".strip()
            rows = groups.setdefault(name.rpartition(".")[0], {})
            rows[row] = f"{key.help}{_one_of(key.choices)} [{key.source}]"
        for group, rows in groups.items():
            parser.describe(None if group else "keys, with their defaults [and sources]", rows)
    return parser.format_help()


def _join_negative_numbers(argv: Sequence[str]) -> list[str]:
    """Joins ``--key -1e3`` to one word, because argparse takes ``-1e3`` for a flag."""
    words: list[str] = []
    for word in argv:
        last = words[-1] if words else ""
        if re.match(r"-\.?\d", word) and last.startswith("--") and "=" not in last:
            words[-1] = f"{last}={word}"
        else:
            words.append(word)
    return words


def _refuse(word: str, options: list[str], keys: Mapping[str, Key]) -> None:
    """Refuses a word that is no flag and belongs to none."""
    name = word.lstrip("-").partition("=")[0]
    if not word.startswith("-") or name in keys:
        raise UserError(f"unexpected word {word!r}: flags are --key value or --key=value")
    near = suggest(name, options)
    if not keys or (near and near == suggest(name, [*options, *keys])):
        raise UserError(f"unknown option --{name}{near or '; see --help'}")
    find_key(name, keys)


def _one_or_more(name: str, words: list[str]) -> list[str]:
    if not words:
        raise UserError(f"--{name} needs a value")
    return words


def _one(name: str, words: list[str], default: Value) -> str:
    """The one word of a flag; a switch without a word is true."""
    if not words and isinstance(default, bool):
        return "true"
    if len(_one_or_more(name, words)) > 1:
        raise UserError(f"--{name} takes one value, got {len(words)}: {' '.join(words[:5])}")
    return words[0]


def _presets(agent: str) -> str:
    """A table of the presets that an agent takes, with the first comment of each file."""
    rows = []
    for name, path in sorted(preset_files(agent).items()):
        if agent == DREAMER or not preset_refusal(name, agent):
            with path.open(encoding="utf-8") as file:
                text = file.readline().lstrip("# ").strip()
            indent = " " * (_COLUMN - 2)
            row = f"{name:<{len(indent) - 1}} {text}"
            rows.append(textwrap.fill(row, _width() - 2, subsequent_indent=indent))
    return "\n".join(rows)


def _one_of(choices: tuple[Any, ...]) -> str:
    return f" One of: {', '.join(map(str, choices))}." if choices else ""


def _example(value: Value) -> str:
    """A value as it can be typed."""
    if isinstance(value, str):
        return value or '""'
    return str(value).lower() if isinstance(value, bool) else number(value)


def _width() -> int:
    return min(120, max(80, shutil.get_terminal_size().columns))
