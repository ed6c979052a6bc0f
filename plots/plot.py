"""Figures and tables of every run below a folder, beside published results.

    python plots/plot.py --indir runs/ --outdir plots/out/
    python plots/plot.py --indir plots/results --outdir plots/out --tasks dmc_cartpole_balance \
        --methods dreamer_small --published dreamer_tf2_release --figures curves
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script, from anywhere: make the checkout importable
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from dreamer.errors import UserError, suggest
from plots.curves import Runs, group, listed, methods_of, tasks_of
from plots.finding import METRICS, Found, Place, find_runs
from plots.loading import Counts, load_runs
from plots.names import SUITES, choose, suite_gaps, suite_of, task_name
from plots.options import parse
from plots.published import Published
from plots.study import Study, build


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit status: 0, or 2 after a user's mistake."""
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    try:
        options = parse(arguments)
        written = plot(options, console)
    except UserError as error:
        console.print(f"plot.py: {error}")
        return 2
    except KeyboardInterrupt:
        console.print("plot.py: interrupted; figures already written are complete.")
        return 130
    for path in written:
        print(path)
    return 0


def plot(options: argparse.Namespace, console: Console) -> list[Path]:
    """Reads the runs, writes what `options` ask for, and returns the files written.

    Raises:
        UserError: whatever is wrong with the folders, the names or the options.
    """
    try:
        from plots import drawing
    except ImportError as error:
        raise UserError(f"{error}. Plots need matplotlib and scipy: pip install 'matplotlib>=3.8' "
                        "'scipy>=1.11' (or make setup).") from error
    published = Published.load(options.published_dir)
    readings = choose(options.ablation, published.figures, "ablation figure")
    study = make_study(options, published, console)
    for note in study.all_notes():
        console.print(f"note: {note}")
    make_outdir(options.outdir)
    return drawing.draw_all(study, options, readings)


def make_study(options: argparse.Namespace, published: Published, console: Console) -> Study:
    """Reads the chosen runs; returns them with what the figures need.

    Raises:
        UserError: see `plot`.
    """
    compared = None
    if options.published is not None:
        names = [] if options.published == ["none"] else options.published
        compared = choose(names, published.methods, "published method")
    found, notes = _find(options, console)
    known_tasks = {place.task for place in found.runs}
    tasks = _chosen_tasks(options, known_tasks, published)
    methods = sorted({place.method for place in found.runs + found.lost})
    if options.methods is not None:
        methods = choose(options.methods, methods, "method")
    wanted, lost = ([place for place in places if place.method in methods
                     and (tasks is None or place.task in tasks)]
                    for places in (found.runs, found.lost))
    if not wanted:
        raise UserError(f"No run of {', '.join(methods[:5])} on the chosen tasks. There are runs "
                        f"on {', '.join(sorted(known_tasks)[:20])}.")
    runs, counts, width = _read(wanted, options, console)
    if tasks is None:
        tasks = tasks_of(runs)
        notes += suite_gaps(tasks)
    if options.methods is None:
        methods = methods_of(runs)
    notes += _lost_note(lost) + counts.messages(options.metric)
    without = set(counts.without_metric)
    lost += [place for place in wanted if place.path in without]
    return build(runs, tasks, methods, published, compared, metric=options.metric, width=width,
                 spread=options.spread, at=options.at, seeds=options.seeds, lost=lost, notes=notes)


def make_outdir(folder: Path) -> None:
    """Makes the folder for the results.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot make {folder}: {error.strerror}. Choose another "
                        "--outdir.") from error


def _lost_note(lost: list[Place]) -> list[str]:
    if not lost:
        return []
    names = listed([f"{place.task}/{place.method}/{place.seed}" for place in lost])
    return [f"{len(lost)} run(s) hold no {METRICS} (ended before it, or only begun): {names}."]


def _find(options: argparse.Namespace, console: Console) -> tuple[Found, list[str]]:
    with console.status("finding runs"):
        found = find_runs(options.indir, options.layout)
    unknown, where = found.unknown, ", ".join(map(str, options.indir))
    if unknown and not found.runs:
        raise UserError(f"None of the {len(unknown)} run(s) in {where} tells its task, method and "
                        f"seed, the first of them {unknown[0].parent}. Expected "
                        "<task>/<method>/<seed>/, or say how they are named with --layout, such "
                        "as '{method}/{task}/{seed}'.")
    if not found.runs:
        raise UserError(" ".join([f"No {METRICS} below {where}.", *_lost_note(found.lost),
                                  "Expected run folders such as "
                                  f"dmc_walker_walk/dreamer/0/{METRICS}."]))
    if not unknown:
        return found, []
    return found, [f"{len(unknown)} run(s) left out, since their folder tells no task, method "
                   f"and seed, the first of them {unknown[0].parent}; see --layout."]


def _chosen_tasks(
    options: argparse.Namespace, known: set[str], published: Published
) -> list[str] | None:
    if options.suite is not None:
        choose([options.suite], SUITES, "suite")
        return list(SUITES[options.suite])
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
                                f"{', '.join(sorted(known)[:20])}.")
            choose([task], sorted(known), "task")
        chosen.append(task)
    return list(dict.fromkeys(chosen))


def _read(
    places: list[Place], options: argparse.Namespace, console: Console
) -> tuple[Runs, Counts, int]:
    total = sum(place.path.stat().st_size for place in places)
    columns = (TextColumn(f"reading {len(places)} runs"), BarColumn(), DownloadColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=total)
        runs, counts, width = load_runs(
            places, options.metric, options.bin, lambda count: progress.advance(bar, count))
    console.print(f"read {len(places)} run(s), {total / 1e6:.1f} MB")
    return group(runs), counts, width


if __name__ == "__main__":
    sys.exit(main())
