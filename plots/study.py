"""The data behind a set of figures: tasks, methods, their curves and their scores.

Also the options of plot.py and report.py that choose the runs and say how they are read.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from dreamer.config.command_line import Option
from dreamer.errors import UserError
from dreamer.tasks import TASK_LISTS
from plots import labels
from plots.published import Point, Published
from plots.runs import METRICS, FoundRuns, Run, RunFolder, auto_bin, find_runs, load_runs

DEFAULT_PUBLISHED = {
    "dmc": ("dreamer_tf2_release", "dreamer", "planet", "d4pg", "a3c"),
    "atari": ("rainbow", "dqn", "human", "random"),
}
"""By suite, the published methods shown if none are chosen."""
PUBLISHED_FRAMES = {"dmc": 1000, "atari": 108_000}
"""By suite, the frames of the longest episodes of published results."""
MOST_METHODS, MOST_TASKS = 12, 30  # in one figure
_M = TypeVar("_M")
CHOICE = (
    Option("tasks", "", "Tasks to show, in this order.", many=True),
    Option("suite", "", f"All tasks of a suite, with or without runs: {', '.join(TASK_LISTS)}."),
    Option("methods", "", "Methods of the runs to show.", many=True),
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


class Curve(NamedTuple):
    """A method's curve on one task.

    Attributes:
        x: frames [n].
        mean, low, high: mean and spread over the seeds that have a value there, [n].
        present: number of these seeds [n].
        seeds: number of all seeds; where present < seeds, a seed has not begun or has ended.
    """

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    present: np.ndarray
    seeds: int


class Final(NamedTuple):
    """Final scores of a method on a task, and their frames, both float64 [seeds]."""

    scores: np.ndarray
    frames: np.ndarray


def curve(runs: Sequence[Run], spread: str = "std") -> Curve:
    """Returns the mean over seeds by bin, and its spread (see `spread_of`).

    There is a point where some run has a value. Other runs are interpolated there linearly, between
    their first and last bin. So the mean does not jump between sets of seeds where runs are
    evaluated at different steps.
    """
    x = np.unique(np.concatenate([run.x for run in runs]))
    y = np.array([np.interp(x, run.x, run.y, left=np.nan, right=np.nan) for run in runs])
    return Curve(x, np.nanmean(y, axis=0), *spread_of(y, spread), np.isfinite(y).sum(axis=0),
                 len(runs))


def spread_of(values: np.ndarray, spread: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the low and high end of the spread over seeds, each [n].

    Args:
        values: one row a seed, NaN where the seed has no value, [seeds, n].
        spread: ``std`` is one standard deviation of the seeds (ddof 0), ``ci`` the 95 % percentile
            bootstrap interval of the mean over seeds, ``range`` the lowest and highest seed.
    """
    if spread == "range":
        return np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    if spread == "std":
        mean, std = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
        return mean - std, mean + std
    n = len(values)
    draws = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=2000)
    with np.errstate(invalid="ignore"):  # a resample without a value has no mean
        means = draws @ np.nan_to_num(values) / (draws @ np.isfinite(values))
    low, high = np.nanpercentile(means, [2.5, 97.5], axis=0)
    return low, high


def final(runs: Sequence[Run], width: int, at: float | None = None) -> Final:
    """Returns each run's score in its last bin, or at `at` frames.

    A run that ended more than one bin before `at` has no score.
    """
    end = np.inf if at is None else at
    found = [(np.interp(end, run.x, run.y), np.clip(end, run.x[0], run.x[-1])) for run in runs
             if at is None or run.x[0] - width < at <= run.x[-1] + width]
    return Final(*np.array(found, np.float64).reshape(-1, 2).T)


def whiskers(scores: np.ndarray, spread: str) -> np.ndarray:
    """Returns how far the spread of scores [n] reaches below and above their mean, [2, 1]."""
    low, high = spread_of(scores[:, None], spread)
    return np.maximum([scores.mean() - low, high - scores.mean()], 0.0)


def cut_note(methods: Sequence[object]) -> list[str]:
    """Returns a note if these methods are too many for one figure."""
    return ([f"Figures draw {MOST_METHODS} of {len(methods)} methods, the first of each task among "
             "them; tables hold all."] if len(methods) > MOST_METHODS else [])


def most_methods(tasks: Mapping[_M, Iterable[str]]) -> list[_M]:
    """Returns the methods to draw, given the tasks of each: the first of each task, then others.

    They keep their order. So no task's panel is empty because its methods come last.
    """
    firsts = {task: method for method in reversed(list(tasks)) for task in tasks[method]}
    chosen = list(dict.fromkeys([*firsts.values(), *tasks]))[:MOST_METHODS]
    return [method for method in tasks if method in chosen]


class Study:
    """All that figures and tables show.

    Args:
        runs, published: our runs, and all published results.
        tasks, methods: to show, in order.
        published_methods: the published methods to show; None takes `DEFAULT_PUBLISHED`.
        metric, width: the metric's name, and the frames of a bin.
        spread: what bands and whiskers show, see `spread_of`.
        at: frames at which scores are compared; None compares them where each run ends.
        seeds: seeds a method should have; None means the most it was started with on any task.
        valueless: runs without any value of the metric, which count as started.
        notes: what was skipped in our files.

    Attributes:
        runs, curves, scored: runs in the order of their seeds, their `Curve`, and their `Final` if
            there is a score, by (task, method).
    """

    def __init__(
        self, runs: Iterable[Run], tasks: Sequence[str], methods: Sequence[str],
        published: Published, published_methods: Sequence[str] | None, *, metric: str, width: int,
        spread: str = "std", at: float | None = None, seeds: int | None = None,
        valueless: Sequence[RunFolder] = (), notes: Sequence[str] = (),
    ):
        if published_methods is None:
            suites = dict.fromkeys(labels.suite_of(task) for task in tasks)
            published_methods = [name for suite in suites
                                 for name in DEFAULT_PUBLISHED.get(suite, ())]
        self.tasks, self.methods, self.published = list(tasks), list(methods), published
        self.published_methods, unpublished = (
            [name for name in published_methods
             if any(published.point(task, name) for task in tasks) == has]
            for has in (True, False))
        self.metric, self.width, self.spread, self.at = metric, width, spread, at
        by_name: dict[tuple[str, str], list[Run]] = defaultdict(list)
        for run in runs:
            if run.task in tasks and run.method in methods:
                by_name[run.task, run.method].append(run)
        self.runs = {key: sorted(found, key=lambda run: (len(run.seed), run.seed))
                     for key, found in by_name.items()}
        self.curves = {key: curve(found, spread) for key, found in self.runs.items()}
        scored = {key: final(found, width, at) for key, found in self.runs.items()}
        self.scored = {key: found for key, found in scored.items() if len(found.scores)}
        self._seeds, self._valueless, self._reading_notes = seeds, valueless, list(notes)
        if unpublished:
            self._reading_notes.append("Nothing published on these tasks: "
                                       f"{labels.listed(unpublished)}.")

    def _with(self, **attributes: Any) -> Study:
        """Returns a copy with other attributes."""
        study = copy.copy(self)
        vars(study).update(attributes)
        return study

    @property
    def notes(self) -> list[str]:
        """Sentences on what was skipped, what is missing, and what cannot be compared."""
        notes = [*self._reading_notes, *self._short_episodes()]
        points = {name: self.own_points(name) for name in self.methods}
        if lacking := [name for name in self.methods if len(points[name]) < len(self.tasks)]:
            notes.append(f"{len(lacking)} of {len(self.methods)} method(s) lack a score on some of "
                         f"the {len(self.tasks)} tasks: {labels.listed(lacking, 3)}.")
        if short := [f"{name} on {task} ({len(scores)} of {self.expected(name)})"
                     for name in self.methods for task, scores in points[name].items()
                     if len(scores) < self.expected(name)]:
            notes.append(f"Fewer seeds: {labels.listed(short)}.")
        apart = []
        for task, ends in ((task, self._ends(task)) for task in self.tasks):
            if ends and max(ends.values()) - min(ends.values()) > self.width:
                words = [f"{name} {labels.short_frames(ends[name])}"
                         for name in (pick(ends, key=ends.__getitem__) for pick in (min, max))]
                apart.append(f"{task} ({', '.join(words)})")
        if apart:
            notes.append(f"Methods end at different frames on {labels.listed(apart, 2)}; --at "
                         "compares them at the same.")
        return notes

    def _short_episodes(self) -> list[str]:
        """Returns a note on runs whose episodes are shorter than the published ones."""
        found = dict.fromkeys(
            f"{run.method} on {run.task} ({run.time_limit:,} frames)"
            for runs in self.runs.values() for run in runs
            if 0 < run.time_limit < PUBLISHED_FRAMES.get(labels.suite_of(run.task), 0))
        return [f"Episodes are shorter than the published ones, so returns are smaller and cannot "
                f"be compared with them: {labels.listed(list(found))}."] if found else []

    def expected(self, method: str) -> int:
        """Returns the number of seeds that the method should have on every task."""
        if self._seeds is not None:
            return self._seeds
        runs = [*itertools.chain.from_iterable(self.runs.values()), *self._valueless]
        started = {(run.task, run.seed) for run in runs if run.method == method}
        return max(Counter(task for task, _ in started).values(), default=0)

    def label(self, method: str) -> str:
        """Returns the method's name with the frames of its scores."""
        frames = self.frames_of([method])
        return f"{method} ({frames})" if frames else method

    def published_name(self, method: str) -> str:
        """Returns the published method's label with the frames of its scores."""
        points = [self.published_at(task, method)[-1:] for task in self.tasks]
        frames = labels.frames_range(point.frames for found in points for point in found)
        return labels.published_label(method) + (f" ({frames})" if frames else "")

    def frames_of(self, methods: Iterable[str]) -> str:
        """Returns the frames of the methods' scores: ``150k``, ``40k-150k``, ``""`` if none."""
        return labels.frames_range(
            frames for method, task in itertools.product(methods, self.tasks)
            if (task, method) in self.scored for frames in self.scored[task, method].frames)

    def at_words(self) -> str:
        """Returns where scores are taken: ``at the end`` (of each run) or ``at 1M frames``."""
        return "at the end" if self.at is None else f"at {labels.short_frames(self.at)} frames"

    def first_methods(self) -> Study:
        """Returns the study of `most_methods`, with a note if any is left out."""
        tasks = {method: [task for task in self.tasks if (task, method) in self.curves]
                 for method in self.methods}
        return self._with(methods=most_methods(tasks),
                          _reading_notes=[*cut_note(self.methods), *self._reading_notes])

    def pages(self) -> list[tuple[Study, str]]:
        """Returns the study in parts of `MOST_TASKS`, each with the suffix of its files."""
        starts = range(0, len(self.tasks), MOST_TASKS)
        return [(self._with(tasks=self.tasks[start : start + MOST_TASKS]),
                 f"_{page}" if len(starts) > 1 else "") for page, start in enumerate(starts, 1)]

    def only(self, methods: Collection[str]) -> Study:
        """Returns the study of these methods, on the tasks where they have scores, or on all."""
        study = self._with(methods=[method for method in self.methods if method in methods])
        return study._with(tasks=[task for task in self.tasks if study._ends(task)] or self.tasks)

    def end(self) -> float:
        """Returns the last frame of our curves on these tasks; 0 if there is none."""
        ends = [found.x[-1] for (task, _), found in self.curves.items() if task in self.tasks]
        return float(max(ends, default=0))

    def _ends(self, task: str) -> dict[str, float]:
        """Returns by method the most frames of our scores on the task."""
        return {method: float(self.scored[task, method].frames.max())
                for method in self.methods if (task, method) in self.scored}

    def published_at(self, task: str, method: str) -> list[Point]:
        """Returns the published scores to show beside ours, each at other frames.

        They are read off the curve at `at` frames, or else at every end of our methods. Where the
        curve does not reach, and without a curve, it is the score with the most frames.
        """
        last = self.published.point(task, method)
        if last is None:
            return []
        ends = self._ends(task).values() if self.at is None else [self.at]
        targets = list[float]()
        for end in sorted(ends, reverse=True):
            if not targets or targets[0] - end > self.width:  # less than a bin apart is equal
                targets.insert(0, end)
        points = [self.published.point(task, method, end) or last for end in targets] or [last]
        return list({point.frames: point for point in points}.values())

    def own_points(self, method: str) -> dict[str, np.ndarray]:
        """Returns the method's final scores [seeds] by task."""
        return {task: self.scored[task, method].scores
                for task in self.tasks if (task, method) in self.scored}

    def published_points(self, method: str) -> dict[str, np.ndarray]:
        """Returns by task the published score beside our longest run, as of a single run, [1]."""
        found = {task: self.published_at(task, method)[-1:] for task in self.tasks}
        return {task: np.array([point.score for point in last])
                for task, last in found.items() if last}


def make_study(options: dict[str, Any], published: Published, console: Console) -> Study:
    """Reads the runs that the options choose, prints the notes, and returns the study.

    Raises:
        UserError: a folder, a name or an option is wrong.
    """
    compared = options["published"] or None
    if compared is not None:
        compared = labels.choose([] if compared == ["none"] else compared, published.methods,
                                 "published method")
    with console.status("finding runs"):
        found = find_runs(map(Path, options["indir"]))
    notes = _check_found(found, options["indir"])
    known_tasks = {run.task for run in found.runs}
    tasks = _chosen_tasks(options, known_tasks, published)
    methods = sorted({run.method for run in found.runs + found.without_metrics})
    if options["methods"]:
        methods = labels.choose(options["methods"], methods, "method")
    wanted, valueless = ([run for run in runs if run.method in methods
                          and (tasks is None or run.task in tasks)]
                         for runs in (found.runs, found.without_metrics))
    if not wanted:
        raise UserError(f"No run of {labels.listed(methods, 5)} on the chosen tasks. There are "
                        f"runs on {labels.listed(sorted(known_tasks), 20)}.")
    width = options["bin"] or auto_bin(wanted)
    runs, problems = load_runs(track(wanted, "reading runs", console=console, transient=True),
                               options["metric"], width)
    size = sum(run.metrics.stat().st_size for run in wanted) / 1e6
    console.print(f"read {len(wanted)} run(s), {size:.1f} MB")
    if tasks is None:
        tasks = labels.in_order(run.task for run in runs)
        notes += labels.suite_gaps(tasks)
    if not options["methods"]:
        methods = sorted({run.method for run in runs})
    notes += _without_metrics_note(valueless) + problems.messages(options["metric"])
    study = Study(runs, tasks, methods, published, compared, metric=options["metric"],
                  width=width, spread=options["spread"], at=options["at"] or None,
                  seeds=options["seeds"] or None,
                  valueless=valueless + problems.without_metric, notes=notes)
    for note in cut_note(methods) + study.notes:
        console.print(f"note: {note}")
    return study


def _without_metrics_note(runs: list[RunFolder]) -> list[str]:
    return [f"{len(runs)} run(s) hold no {METRICS} (they ended before it or have just begun): "
            f"{labels.listed([run.name for run in runs])}."] if runs else []


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


def _chosen_tasks(
    options: dict[str, Any], known: set[str], published: Published
) -> list[str] | None:
    """Returns the chosen tasks, None if there is no choice."""
    if options["suite"] and options["tasks"]:
        raise UserError("Expected --suite or --tasks, not both.")
    if options["suite"]:
        return list(TASK_LISTS[labels.choose([options["suite"]], TASK_LISTS, "suite")[0]])
    tasks = sorted(known) + sorted({row.task for row in published.rows} - known)
    asked = [labels.task_name(word) or word for word in options["tasks"]]
    return labels.choose(asked, tasks, "task") or None
