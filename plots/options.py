"""What plot.py and report.py share: options, the runs they choose, and the exit status."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import track

from dreamer.errors import UserError, suggest
from dreamer.tasks import TASK_LISTS
from plots.curves import group
from plots.finding import METRICS, FoundRuns, RunFolder, find_runs
from plots.labels import choose, in_order, listed, suite_gaps, suite_of, task_name
from plots.loading import load_runs
from plots.published import DIRECTORY, Published
from plots.study import Study


def run_program(name: str, work: Callable[[Console], list[Path]], interrupted: str) -> int:
    """Prints the paths that `work` returns; returns the exit status: 0, or 2 after a UserError."""
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    try:
        written = work(console)
    except UserError as error:
        console.print(f"{name}: {error}")
        return 2
    except KeyboardInterrupt:
        console.print(f"{name}: interrupted; {interrupted}")
        return 130
    for path in written:
        print(path)
    return 0


class OneLineParser(argparse.ArgumentParser):
    """Answers a usage error with one line, without the usage, and with status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{Path(self.prog).name}: error: {message} (see --help)\n")


def add_choice(group: argparse._ArgumentGroup) -> None:
    """Adds the options that choose tasks, methods and published methods."""
    tasks = group.add_mutually_exclusive_group()
    tasks.add_argument("--tasks", nargs="+", metavar="TASK", help="these tasks, in this order")
    tasks.add_argument("--suite", metavar="NAME", help="all tasks of a suite, with or without "
                       f"runs: {', '.join(TASK_LISTS)}")
    add = group.add_argument
    add("--methods", nargs="+", metavar="METHOD", help="these methods of the runs")
    add("--published", nargs="+", metavar="METHOD",
        help="published methods to show beside them, or none (default: those of the suite's "
             "papers)")
    add("--published-dir", type=Path, default=DIRECTORY, metavar="DIR",
        help="folder of published CSV files (default: baselines/published)")


def add_reading(group: argparse._ArgumentGroup) -> None:
    """Adds the options on how runs are read and their scores taken."""
    add = group.add_argument
    add("--metric", default="eval/return", help="scalar to plot (default: eval/return)")
    add("--layout", metavar="PATTERN",
        help="how run folders are named, such as '{method}/{task}/{seed}' (default: found out)")
    add("--bin", type=frames, metavar="FRAMES", help="bin width (default: about 50 bins)")
    add("--spread", choices=("std", "ci", "range"), default="std",
        help="bands and whiskers: standard deviation, 95%% bootstrap interval of the mean, or "
             "range (default: std)")
    add("--at", type=frames, metavar="FRAMES",
        help="compare scores at this many frames (default: where each run ends)")
    add("--seeds", type=count, metavar="N",
        help="seeds each method should have (default: the most it has on any task)")
    add("--resamples", type=count, default=2000, metavar="N",
        help="bootstrap resamples (default: 2000)")


def frames(text: str) -> int:
    """Reads a number of frames, as an argparse type."""
    with contextlib.suppress(ValueError, OverflowError):
        if 1 <= float(text) <= 1e15 and float(text).is_integer():
            return int(float(text))
    raise argparse.ArgumentTypeError(f"{text!r} is no number of frames, such as 1e6")


def count(text: str) -> int:
    """Reads a whole number from 1 to a million, as an argparse type."""
    if not (text.isdecimal() and 1 <= int(text) <= 1_000_000):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 1000000")
    return int(text)


def make_study(options: argparse.Namespace, published: Published, console: Console) -> Study:
    """Reads the runs that the options choose, prints the notes, and returns the study.

    Raises:
        UserError: a folder, a name or an option is wrong.
    """
    compared = options.published
    if compared is not None:
        compared = choose([] if compared == ["none"] else compared, published.methods,
                          "published method")
    found, notes = _find(options, console)
    known_tasks = {run.task for run in found.runs}
    tasks = _chosen_tasks(options, known_tasks, published)
    methods = sorted({run.method for run in found.runs + found.without_metrics})
    if options.methods is not None:
        methods = choose(options.methods, methods, "method")
    wanted, valueless = ([run for run in runs if run.method in methods
                          and (tasks is None or run.task in tasks)]
                         for runs in (found.runs, found.without_metrics))
    if not wanted:
        raise UserError(f"No run of {listed(methods, 5)} on the chosen tasks. There are runs on "
                        f"{listed(sorted(known_tasks), 20)}.")
    runs, problems, width = load_runs(
        wanted, options.metric, options.bin,
        lambda runs: track(runs, "reading runs", console=console, transient=True))
    size = sum(run.metrics.stat().st_size for run in wanted) / 1e6
    console.print(f"read {len(wanted)} run(s), {size:.1f} MB")
    if tasks is None:
        tasks = in_order(run.task for run in runs)
        notes += suite_gaps(tasks)
    if options.methods is None:
        methods = sorted({run.method for run in runs})
    notes += _without_metrics_note(valueless) + problems.messages(options.metric)
    study = Study(group(runs), tasks, methods, published, compared, metric=options.metric,
                  width=width, spread=options.spread, at=options.at, seeds=options.seeds,
                  valueless=valueless + problems.without_metric, notes=notes)
    for note in study.all_notes():
        console.print(f"note: {note}")
    return study


def _without_metrics_note(runs: list[RunFolder]) -> list[str]:
    if not runs:
        return []
    return [f"{len(runs)} run(s) hold no {METRICS} (ended before it, or only begun): "
            f"{listed([run.name for run in runs])}."]


def _find(options: argparse.Namespace, console: Console) -> tuple[FoundRuns, list[str]]:
    with console.status("finding runs"):
        found = find_runs(options.indir, options.layout)
    unknown, where = found.unknown, ", ".join(map(str, options.indir))
    if unknown and not found.runs:
        raise UserError(f"None of the {len(unknown)} run(s) in {where} names its task, method and "
                        f"seed, the first of them {unknown[0]}. Expected <task>/<method>/<seed>/, "
                        "or say how they are named with --layout, such as "
                        "'{method}/{task}/{seed}'.")
    if not found.runs:
        raise UserError(" ".join([
            f"No {METRICS} below {where}.", *_without_metrics_note(found.without_metrics),
            f"Expected run folders such as dmc_walker_walk/dreamer/0/{METRICS}."]))
    return found, [f"{len(unknown)} run(s) left out, because their folder names no task, method "
                   f"and seed, the first of them {unknown[0]}; see --layout."] if unknown else []


def _chosen_tasks(
    options: argparse.Namespace, known: set[str], published: Published
) -> list[str] | None:
    """Returns the chosen tasks, None if there is no choice."""
    if options.suite is not None:
        return list(TASK_LISTS[choose([options.suite], TASK_LISTS, "suite")[0]])
    if options.tasks is None:
        return None
    compared = {row.task for row in published.rows}
    chosen = []
    for word in options.tasks:
        task = task_name(word) or word
        if task not in known and task not in compared:
            if "_" in task and not suite_of(task):
                raise UserError(f"Unknown suite in the task name {word!r}"
                                f"{suggest(word, known | compared)}. Runs are on: "
                                f"{listed(sorted(known), 20)}.")
            choose([task], sorted(known), "task")
        chosen.append(task)
    return list(dict.fromkeys(chosen))
