"""The data behind a set of figures: tasks, methods, their curves and their scores."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from plots.labels import frames_range, listed, published_label, short_frames, suite_of
from plots.published import Point, Published
from plots.runs import Run, RunFolder

DEFAULT_PUBLISHED = {
    "dmc": ("dreamer_tf2_release", "dreamer", "planet", "d4pg", "a3c"),
    "atari": ("rainbow", "dqn", "human", "random"),
}
"""By suite, the published methods shown if none are chosen."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """A method's curve on one task.

    Attributes:
        x: frames [n].
        mean, low, high: mean and spread over the seeds that have a value there, [n].
        count: number of these seeds [n].
        seeds: number of all seeds; where count < seeds, a seed has not begun or has ended.
    """

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray
    seeds: int


class Final(NamedTuple):
    """Final scores of a method on a task, and their frames, both float64 [seeds]."""

    scores: np.ndarray
    frames: np.ndarray


def curve(runs: Sequence[Run], width: int, spread: str = "std") -> Curve:
    """Returns the mean over seeds in bins of `width` frames, and its spread (see `spread_of`).

    Between its first and last bin, a run is interpolated linearly. Runs evaluated at different
    steps therefore do not make the mean jump between different sets of seeds.
    """
    x = np.arange(min(run.x[0] for run in runs), max(run.x[-1] for run in runs) + width, width,
                  dtype=np.int64)
    y = np.array([np.interp(x, run.x, run.y, left=np.nan, right=np.nan) for run in runs])
    present = np.isfinite(y)  # [runs, n]
    keep = present.any(axis=0)
    x, y, present = x[keep], y[:, keep], present[:, keep]
    return Curve(x, np.nanmean(y, axis=0), *spread_of(y, spread), present.sum(axis=0), len(runs))


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
    if at is None:
        found = [(run.y[-1], run.x[-1]) for run in runs]
    else:
        found = [(np.interp(at, run.x, run.y), np.clip(at, run.x[0], run.x[-1])) for run in runs
                 if run.x[0] - width < at <= run.x[-1] + width]
    return Final(*np.array(found, np.float64).reshape(-1, 2).T)


def whiskers(scores: np.ndarray, spread: str) -> np.ndarray:
    """Returns how far the spread of scores [n] reaches below and above their mean, [2, 1]."""
    low, high = spread_of(scores[:, None], spread)
    return np.maximum([scores.mean() - low, high - scores.mean()], 0.0)


class Study:
    """All that figures and tables show.

    Args:
        runs: our runs.
        tasks, methods: to show, in order.
        published: all published results.
        published_methods: the published methods to show; None takes `DEFAULT_PUBLISHED`.
        metric: the metric's name.
        width: of a bin, in frames.
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
            suites = dict.fromkeys(suite_of(task) for task in tasks)
            published_methods = [name for suite in suites
                                 for name in DEFAULT_PUBLISHED.get(suite, ())]
        self.tasks, self.methods, self.published = list(tasks), list(methods), published
        self.published_methods = [name for name in published_methods
                                  if published.tasks(name) & set(tasks)]
        self.metric, self.width, self.spread, self.at = metric, width, spread, at
        self.runs: dict[tuple[str, str], list[Run]] = {}
        for run in runs:
            if run.task in tasks and run.method in methods:
                self.runs.setdefault((run.task, run.method), []).append(run)
        for found in self.runs.values():
            found.sort(key=lambda run: (len(run.seed), run.seed))
        self.curves = {key: curve(found, width, spread) for key, found in self.runs.items()}
        scored = {key: final(found, width, at) for key, found in self.runs.items()}
        self.scored = {key: found for key, found in scored.items() if len(found.scores)}
        self._seeds, self._valueless, self._reading_notes = seeds, valueless, list(notes)
        if unpublished := [name for name in published_methods
                           if name not in self.published_methods]:
            self._reading_notes.append(f"Nothing published on these tasks: {listed(unpublished)}.")

    def _with(self, **attributes: Any) -> Study:
        """Returns a copy with other attributes."""
        study = copy.copy(self)
        vars(study).update(attributes)
        return study

    # What is missing.

    @property
    def notes(self) -> list[str]:
        """Sentences on what was skipped, what is missing, and what cannot be compared."""
        notes, points = list(self._reading_notes), {name: self.own_points(name)
                                                    for name in self.methods}
        if lacking := [name for name in self.methods if len(points[name]) < len(self.tasks)]:
            notes.append(f"{len(lacking)} of {len(self.methods)} method(s) lack a score on some of "
                         f"the {len(self.tasks)} tasks: {listed(lacking, 3)}.")
        if short := [f"{name} on {task} ({len(scores)} of {seeds})"
                     for name in self.methods for seeds in [self.expected(name)]
                     for task, scores in points[name].items() if len(scores) < seeds]:
            notes.append(f"Fewer seeds: {listed(short)}.")
        apart = []
        for task in self.tasks:
            ends = self._ends(task)
            if ends and max(ends.values()) - min(ends.values()) > self.width:
                words = [f"{name} {short_frames(ends[name])}"
                         for name in (min(ends, key=ends.__getitem__),
                                      max(ends, key=ends.__getitem__))]
                apart.append(f"{task} ({', '.join(words)})")
        if apart:
            notes.append(f"Methods end at different frames on {listed(apart, 2)}; --at compares "
                         "them at the same.")
        return notes

    def expected(self, method: str) -> int:
        """Returns the number of seeds that the method should have on every task."""
        if self._seeds is not None:
            return self._seeds
        started: dict[str, set[str]] = {}
        for run in [*(run for found in self.runs.values() for run in found), *self._valueless]:
            if run.method == method:
                started.setdefault(run.task, set()).add(run.seed)
        return max(map(len, started.values()), default=0)

    # Labels.

    def label(self, method: str) -> str:
        """Returns the method's name with the frames of its scores."""
        frames = self.frames_of([method])
        return f"{method} ({frames})" if frames else method

    def published_name(self, method: str) -> str:
        """Returns the published method's label with the frames of its scores."""
        points = [point for task in self.tasks if (point := self.published_point(task, method))]
        frames = frames_range(point.frames for point in points)
        return published_label(method) + (f" ({frames})" if frames else "")

    def frames_of(self, methods: Iterable[str]) -> str:
        """Returns the frames of the methods' scores: ``150k``, ``40k-150k``, ``""`` if none."""
        return frames_range(frames for method in methods for task in self.tasks
                            if (task, method) in self.scored
                            for frames in self.scored[task, method].frames)

    def at_words(self) -> str:
        """Returns where scores are taken: ``at the end`` (of each run) or ``at 1M frames``."""
        return "at the end" if self.at is None else f"at {short_frames(self.at)} frames"

    # Parts of the study.

    def first_methods(self, most: int) -> Study:
        """Returns the study of the first `most` methods."""
        return self._with(methods=self.methods[:most])

    def pages(self, tasks: int) -> list[Study]:
        """Returns the study in parts of at most that many tasks."""
        return [self._with(tasks=self.tasks[i : i + tasks])
                for i in range(0, len(self.tasks), tasks)]

    def only(self, methods: Collection[str]) -> Study:
        """Returns the study of these methods, on the tasks on which any of them has a score.

        If none has a score on any task, all tasks stay.
        """
        study = self._with(methods=[method for method in self.methods if method in methods])
        return study._with(tasks=[task for task in self.tasks if study._ends(task)] or self.tasks)

    # Scores.

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
        targets: list[float] = [] if self.at is None else [self.at]
        if self.at is None:
            for end in sorted(self._ends(task).values(), reverse=True):
                if not targets or targets[0] - end > self.width:  # less than a bin apart is equal
                    targets.insert(0, end)
        points = [self.published.point(task, method, end) or last for end in targets] or [last]
        return list({point.frames: point for point in points}.values())

    def published_point(self, task: str, method: str) -> Point | None:
        """Returns the last of `published_at`, which belongs to the longest of our runs."""
        return next(reversed(self.published_at(task, method)), None)

    def own_points(self, method: str) -> dict[str, np.ndarray]:
        """Returns the method's final scores [seeds] by task."""
        return {task: self.scored[task, method].scores
                for task in self.tasks if (task, method) in self.scored}

    def published_points(self, method: str) -> dict[str, np.ndarray]:
        """Returns the published scores by task, each like the score of a single run, [1]."""
        found = {task: self.published_point(task, method) for task in self.tasks}
        return {task: np.array([point.score]) for task, point in found.items() if point}

