"""Command lines: keys of the config, presets, and a program's own options.

Each key of the config is a flag of the same name (``--train.batch_size 16`` or
``--train.batch_size=16``), and ``--configs`` takes presets. This module imports nothing heavy, so
that ``--help`` and usage errors are quick.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, ClassVar, NoReturn

from dreamer.config.config import Config, load_config, preset_refusal
from dreamer.config.schema import DREAMER, Key, Value, find_key, load_schema, number, preset_files
from dreamer.errors import EnvError, UserError, suggest
from dreamer.system.streams import settle, warn
from dreamer.system.threads import has_abandoned_thread

RUN_KEYS = ("task", "seed", "logdir", "method")
"""Keys that name a run, or say where it lies."""

_COLUMN = 34  # of the help texts


@dataclass(frozen=True)
class Option(Key):
    """An option of one program, which is no key of the config."""

    prefix: ClassVar[str] = "--"
    many: bool = False  # whether it takes one or more words; it is [] if it is not given
    required: bool = False  # whether it must be given


@dataclass(frozen=True)
class Parsed:
    """What a command line says."""

    options: dict[str, Any] = field(default_factory=dict)  # the program's own, with their defaults
    presets: tuple[str, ...] = ()  # of --configs
    overrides: dict[str, Any] = field(default_factory=dict)  # the keys given, checked and typed
    agent: str = DREAMER  # the agent that has these keys

    def config(self) -> Config:
        """Returns the config that the command line describes; raises as `load_config`."""
        return load_config(*self.presets, overrides=self.overrides, agent=self.agent)


@dataclass(frozen=True)
class CommandLine:
    """The command line of one program: ``CommandLine("python -m dreamer.run", "Trains.")``."""

    program: str  # how the program is called
    description: str  # what it does, for --help
    options: tuple[Option, ...] = ()  # its own; one named agent selects the keys
    takes_config: bool = True  # whether the keys of the config and --configs are flags too
    agent: str = DREAMER  # has the keys, unless there is an option agent; "" for no keys

    def parse(self, argv: Sequence[str]) -> Parsed:
        """Reads `argv`, without the program's name; --help prints the help and exits.

        Raises UserError for an unknown or repeated flag, a missing or bad value, or a stray word.
        """
        own = {option.name: option for option in self.options}
        agent = self.agent
        if "agent" in own:
            first = _Parser()
            first.take({"agent": own["agent"]})
            agent = getattr(first.parse_known_args(argv)[0], "agent", agent)
        keys = load_schema(agent) if agent and self.takes_config else {}
        keys = {name: key for name, key in keys.items() if name not in own}
        parser = self._parser(keys, agent if {"-h", "--help"} & set(argv) else "")
        found, extra = parser.parse_known_args(argv)
        if extra and (agent or not self.takes_config):  # without its agent no key is known
            _refuse(extra[0], [*own, *(["configs"] if keys else [])], keys)
        given = vars(found)
        for option in self.options:
            if option.required and option.name not in given:
                one_of = f": expected one of {', '.join(map(str, option.choices))}"
                needed = one_of if option.choices else f": {self.program} needs it"
                raise UserError(f"--{option.name} is missing{needed}")
        options = {k: given.pop(k, [] if o.many else o.value) for k, o in own.items()}
        return Parsed(options, tuple(given.pop("configs", ())), given, agent or DREAMER)

    def _parser(self, keys: Mapping[str, Key], helped: str) -> _Parser:
        """Returns the parser of all flags; its help lists the presets of the agent `helped`."""
        usage = self.program + (" [options]" if self.options else "")
        usage += " [--configs PRESET ...] [--key value ...]" if self.takes_config else ""
        parser = _Parser(usage=usage, description=textwrap.fill(self.description, _width()))
        options = parser.add_argument_group("options")
        options.add_argument("-h", "--help", action="help", help="Show this text.")
        parser.take({option.name: option for option in self.options}, options)
        if keys:
            options.add_argument(
                "--configs", nargs="+", action=_StoreOnce, metavar="PRESET ...",
                help="Presets; a later one replaces values of earlier ones. "
                "A path is your own file.",
            )  # fmt: skip
            parser.add_argument_group("presets", _presets(helped) if helped else None)
            groups: dict[str, dict[str, Key]] = {}
            for name, key in keys.items():
                groups.setdefault(name.rpartition(".")[0], {})[name] = key
            for group, members in groups.items():
                title = None if group else "keys, with their defaults [and sources]"
                parser.take(members, parser.add_argument_group(title))
        return parser


def command_again(values: Mapping[str, Any], presets: Sequence[str], agent: str) -> str:
    """Returns the command that makes a run with these values of keys again.

    It names the values that differ from those of the presets, or all if a preset is not there.
    """
    task = str(values.get("task"))
    words = ["dreamer.run"] if agent == DREAMER else ["baselines.run", "--agent", agent]
    words += [f"--task={task}", f"--seed={values.get('seed', 0)}"]
    words += ["--configs", *presets] if presets else []
    try:
        given = load_config(*presets, task=task, agent=agent).flat()
    except UserError:
        given = {}
    for key, value in values.items():
        own = key in RUN_KEYS and not (key == "method" and value)
        if given.get(key) != value and not own:
            words.append(f"--{key}={str(value).lower() if isinstance(value, bool) else value}")
    return shlex.join(["python", "-m", *words])


def run_main(main: Callable[[Sequence[str]], int | None]) -> NoReturn:
    """Runs ``main(argv)`` and exits with its status.

    A user's error is printed as one line; the exit status is the error's. Before the line of an
    environment's error comes its worker's traceback. Ctrl-C exits quietly with
    status 130. A status other than 0 stays, even if nothing can be printed.
    """
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGINT, interrupt)
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
    except (Exception, KeyboardInterrupt) as error:
        # A library may turn the interrupt into an error of its own.
        if not interrupted and not isinstance(error, KeyboardInterrupt):
            raise
        status = 130  # 128 + SIGINT
    if status:
        settle()  # a success is one only if everything could be printed
    if has_abandoned_thread():
        os._exit(status or 0)
    sys.exit(status)


class _StoreOnce(argparse.Action):
    """Stores the value of a flag, which may be given once."""

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
    """Flags by name; a mistake is a `UserError`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            **settings, add_help=False, allow_abbrev=False, formatter_class=_Formatter,
            argument_default=argparse.SUPPRESS,
        )  # fmt: skip
        self._negative_number_matcher = re.compile(r"-\.?\d")  # argparse takes -1e3 for a flag

    def take(self, keys: Mapping[str, Key], group: argparse._ArgumentGroup | None = None) -> None:
        """Adds a flag for each key; a switch without a word is true."""
        for name, key in keys.items():
            words: dict[str, Any] = {}
            if isinstance(key.value, bool):
                words = {"nargs": "?", "const": True}
            elif isinstance(key, Option) and key.many:
                words = {"nargs": "+"}
            choices = f" One of: {', '.join(map(str, key.choices))}." if key.choices else ""
            source = f" [{key.source}]" if key.source else ""
            (group or self).add_argument(
                f"--{name}", dest=name, action=_StoreOnce, type=key.coerce, **words,
                metavar=f"{_example(key.value)} {key.unit}".strip(),
                help=f"{key.help}{choices}{source}".replace("%", "%%"),
            )  # fmt: skip

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))


def _refuse(word: str, options: list[str], keys: Mapping[str, Key]) -> None:
    """Refuses a word that is no flag and belongs to none."""
    name = word.lstrip("-").partition("=")[0]
    if not word.startswith("-") or name in keys:
        several = "; if a pattern such as dreamer*/0 stands for several paths, name one of them"
        raise UserError(
            f"unexpected word {word!r}: flags are --key value or --key=value"
            f"{several if os.path.exists(word) else ''}"
        )
    near = suggest(name, options)
    if not keys or (near and near == suggest(name, [*options, *keys])):
        raise UserError(f"unknown option --{name}{near or '; see --help'}")
    find_key(name, keys)


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


def _example(value: Value) -> str:
    """A value as it can be typed."""
    if isinstance(value, str):
        return value or '""'
    return str(value).lower() if isinstance(value, bool) else number(value)


def _width() -> int:
    return min(120, max(80, shutil.get_terminal_size().columns))
