"""What plot.py and report.py share: options, and the study of the runs that they choose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from dreamer.config.command_line import Option
from dreamer.errors import UserError
from dreamer.tasks import TASK_LISTS
from plots.labels import choose, in_order, listed, suite_gaps, task_name
from plots.published import DIRECTORY, Published
from plots.runs import METRICS, FoundRuns, RunFolder, find_runs, load_runs
from plots.study import Study
from plots.style import MOST_METHODS

Options = dict[str, Any]  # values by name

CHOICE = (
    Option("tasks", "", "These tasks, in this order.", many=True),
    Option("suite", "", f"All tasks of a suite, with or without runs: {', '.join(TASK_LISTS)}."),
    Option("methods", "", "These methods of the runs.", many=True),
    Option("published", "", "Published methods to show beside them, or none; default: those of "
           "the suite's papers.", many=True),
    Option("published-dir", "", "Folder of published CSV files; default: baselines/published."),
)
"""The options that choose tasks, methods and published methods."""
READING = (
    Option("metric", "eval/return", "Scalar to plot."),
    Option("bin", 0, "Frames of a bin; 0: about 50 bins.", min=0),
    Option("spread", "std", "Bands and whiskers: standard deviation, 95% bootstrap interval of "
           "the mean, or range.", choices=("std", "ci", "range")),
    Option("at", 0, "Compare scores at this many frames; 0: where each run ends.", min=0),
    Option("seeds", 0, "Seeds that each method should have; 0: the most it has on any task.",
           min=0),
    Option("resamples", 2000, "Bootstrap resamples.", min=1),
)
"""The options on how runs are read and their scores taken."""


def load_published(options: Options) -> Published:
    """Returns the published results that the options name."""
    return Published.load(Path(options["published-dir"] or DIRECTORY))


def make_study(options: Options, published: Published, console: Console) -> Study:
    """Reads the runs that the options choose, prints the notes, and returns the study.

    Raises:
        UserError: a folder, a name or an option is wrong.
    """
    compared = options["published"] or None
    if compared is not None:
        compared = choose([] if compared == ["none"] else compared, published.methods,
                          "published method")
    with console.status("finding runs"):
        found = find_runs(map(Path, options["indir"]))
    notes = _check_found(found, options["indir"])
    known_tasks = {run.task for run in found.runs}
    tasks = _chosen_tasks(options, known_tasks, published)
    methods = sorted({run.method for run in found.runs + found.without_metrics})
    if options["methods"]:
        methods = choose(options["methods"], methods, "method")
    wanted, valueless = ([run for run in runs if run.method in methods
                          and (tasks is None or run.task in tasks)]
                         for runs in (found.runs, found.without_metrics))
    if not wanted:
        raise UserError(f"No run of {listed(methods, 5)} on the chosen tasks. There are runs on "
                        f"{listed(sorted(known_tasks), 20)}.")
    runs, problems, width = load_runs(
        wanted, options["metric"], options["bin"],
        lambda runs: track(runs, "reading runs", console=console, transient=True))
    size = sum(run.metrics.stat().st_size for run in wanted) / 1e6
    console.print(f"read {len(wanted)} run(s), {size:.1f} MB")
    if tasks is None:
        tasks = in_order(run.task for run in runs)
        notes += suite_gaps(tasks)
    if not options["methods"]:
        methods = sorted({run.method for run in runs})
    if len(methods) > MOST_METHODS:
        notes.append(f"Figures draw the first {MOST_METHODS} methods, tables hold all.")
    notes += _without_metrics_note(valueless) + problems.messages(options["metric"])
    study = Study(runs, tasks, methods, published, compared, metric=options["metric"],
                  width=width, spread=options["spread"], at=options["at"] or None,
                  seeds=options["seeds"] or None,
                  valueless=valueless + problems.without_metric, notes=notes)
    for note in study.notes:
        console.print(f"note: {note}")
    return study


def _without_metrics_note(runs: list[RunFolder]) -> list[str]:
    return [f"{len(runs)} run(s) hold no {METRICS} (ended before it, or only begun): "
            f"{listed([run.name for run in runs])}."] if runs else []


def _check_found(found: FoundRuns, folders: list[str]) -> list[str]:
    """Returns a note on runs without a name, or raises a UserError if there are no other runs."""
    notes = [f"{len(found.unknown)} run(s) left out, because no folder names its task, method and "
             f"seed, the first of them {found.unknown[0]}."] if found.unknown else []
    if not found.runs:
        raise UserError(" ".join([
            f"No {METRICS} of a known run below {', '.join(folders)}.", *notes,
            *_without_metrics_note(found.without_metrics),
            "Expected <task>/<method>/<seed>/ or <method>/<task>/<seed>/, such as "
            f"dmc_walker_walk/dreamer/0/{METRICS}."]))
    return notes


def _chosen_tasks(options: Options, known: set[str], published: Published) -> list[str] | None:
    """Returns the chosen tasks, None if there is no choice."""
    if options["suite"] and options["tasks"]:
        raise UserError("Expected --suite or --tasks, not both.")
    if options["suite"]:
        return list(TASK_LISTS[choose([options["suite"]], TASK_LISTS, "suite")[0]])
    tasks = sorted(known) + sorted({row.task for row in published.rows} - known)
    return choose([task_name(word) or word for word in options["tasks"]], tasks, "task") or None
