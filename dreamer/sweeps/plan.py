"""The trials of a sweep: tasks x presets or a grid of values x seeds."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamer.config.command_line import Parsed
from dreamer.config.config import Config, check_logdir, load_config
from dreamer.config.schema import Value, find_key, load_schema, number
from dreamer.errors import UserError, suggest
from dreamer.runs.rundir import MAY_DIFFER, RunDir, method_name, run_path
from dreamer.tasks import TASK_LISTS

GridPoint = dict[str, Value]  # config keys and their values


@dataclass(frozen=True)
class Trial:
    """One run of a sweep."""

    path: Path  # its directory, absolute
    words: tuple[str, ...]  # what follows ``python -m`` to start it
    config: Config

    @property
    def name(self) -> str:
        """``<task>/<method>/<seed>``, the end of the path."""
        return "/".join(self.path.parts[-3:])

    def check_same_config(self) -> None:
        """Raises a UserError if its directory was made with another config."""
        if not (self.path / "config.yaml").exists():
            return
        old, new = RunDir.load(self.path)[1].flat(), self.config.flat()
        if differing := [
            f"{key} is {old.get(key)!r}, now {new[key]!r}"
            for key in new
            if old.get(key) != new[key] and not MAY_DIFFER.fullmatch(key)
        ]:
            raise UserError(
                f"{self.path} was made with another config: {', '.join(differing)}; use the same "
                "values, or another --method or --logdir"
            )


def plan(parsed: Parsed) -> list[Trial]:
    """Returns the trials that a command line asks for, ordered by seed first.

    All tasks get their first seed before any gets its second, so that a sweep that is stopped
    leaves complete figures. Raises UserError for an unknown suite, preset, key or value, a key
    given twice, or two trials that would share a directory.
    """
    tasks, points = chosen_tasks(parsed), grid(parsed)
    variants = [tuple(word.split("+")) for word in parsed.presets] or [()]
    first, seeds = int(parsed.overrides.get("seed", 0)), parsed.options["seeds"]
    trials: dict[Path, Trial] = {}
    for seed, task, presets, point in itertools.product(
        range(first, first + seeds), tasks, variants, points
    ):
        trial = _trial(parsed, task, presets, point, seed)
        if trial.path in trials:
            raise UserError(
                f"two trials would share {trial.path}; without --method each preset and grid "
                "value gets a folder of its own"
            )
        trials[trial.path] = trial
    return list(trials.values())


def chosen_tasks(parsed: Parsed) -> list[str]:
    """Returns the tasks of --suite, --tasks or --task; UserError unless one of them is given."""
    suite, tasks = parsed.options["suite"], parsed.options["tasks"]
    single = parsed.overrides.get("task")
    if (bool(suite), bool(tasks), single is not None).count(True) != 1:
        raise UserError(
            "expected one of --suite NAME, --tasks TASK ... and --task TASK; suites are "
            f"{', '.join(TASK_LISTS)}"
        )
    if suite and suite not in TASK_LISTS:
        near = suggest(suite, TASK_LISTS)
        raise UserError(f"unknown suite {suite!r}{near}; there are {', '.join(TASK_LISTS)}")
    return list(dict.fromkeys(TASK_LISTS[suite] if suite else tasks or [str(single)]))


def grid(parsed: Parsed) -> list[GridPoint]:
    """Returns every combination of the values of --grid, such as ``behavior.horizon=5,10,15``.

    Without --grid there is one point without keys. Raises UserError if there is no such key, it
    does not take a value, or a key or a value is given twice.
    """
    words, overrides = parsed.options["grid"], parsed.overrides
    keys = load_schema(parsed.agent)
    axes: dict[str, list[Value]] = {}
    for word in words:
        name, equals, values = word.partition("=")
        if not equals or not values:
            raise UserError(f"--grid {word!r}: expected key=value,value, as behavior.horizon=5,10")
        key = find_key(name, keys)
        if name in axes or name in overrides:
            raise UserError(f"{name} is given twice")
        if name in ("task", "seed", "method", "logdir"):
            raise UserError(f"--grid cannot vary {name}: use --tasks or --seeds")
        axes[name] = [key.coerce(value) for value in values.split(",")]
        if len(set(axes[name])) < len(axes[name]):
            raise UserError(f"--grid {word!r} has a value twice")
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]


def _trial(
    parsed: Parsed, task: str, presets: tuple[str, ...], point: GridPoint, seed: int
) -> Trial:
    common = {key: value for key, value in parsed.overrides.items() if key != "log.terminal"}
    logdir = str(common.get("logdir", load_schema()["logdir"].value))
    check_logdir(logdir)  # before it is made absolute, which makes an address look like a folder
    folder = str(Path(logdir).expanduser().absolute())
    values: dict[str, Any] = {**common, **point, "task": task, "seed": seed, "logdir": folder}
    config = load_config(*presets, overrides=values, agent=parsed.agent)
    # Set only where needed, so that the run can also be resumed without --method.
    if point:
        values["method"] = "_".join([method_name(config), *_point_names(point)])
        config = config.replace({"method": values["method"]})
    agent = parsed.options["agent"]
    words = ["dreamer.run"] if not agent else ["baselines.run", "--agent", agent]
    words += ["--configs", *presets] if presets else []
    words += [f"--{key}={_word(value)}" for key, value in values.items()]
    return Trial(run_path(config), tuple(words), config)


def _point_names(point: GridPoint) -> Iterator[str]:
    """Yields the parts of a method's name: ``horizon=5``, with the whole key if ambiguous."""
    tails = [key.rpartition(".")[2] for key in point]
    for (key, value), tail in zip(point.items(), tails, strict=True):
        name = tail if tails.count(tail) == 1 else key
        text = _word(value) if isinstance(value, str | bool) else number(value)
        yield f"{name}={re.sub(r'[^A-Za-z0-9.+-]+', '-', text)}"


def _word(value: Value) -> str:
    """Returns a value in the form that a command line takes."""
    return str(value).lower() if isinstance(value, bool) else str(value)
