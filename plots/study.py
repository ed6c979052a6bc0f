"""The data behind a set of figures: chosen tasks and methods with their curves and scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from plots.curves import Curve, Final, Runs, curve, finals
from plots.finding import RunFolder
from plots.labels import frames_range, listed, published_label, short_frames, suite_of
from plots.published import Point, Published

DEFAULT_PUBLISHED = {
    "dmc": ("dreamer_tf2_release", "dreamer", "planet", "d4pg", "a3c"),
    "atari": ("rainbow", "dqn", "human", "random"),
}
"""By suite, the published methods shown if none are chosen."""


@dataclasses.dataclass(frozen=True)
class Study:
    """All that figures and tables show.

    Attributes:
        tasks, methods: to show, in order.
        runs, curves, scored: our runs, their curves and final scores, by (task, method).
        published: all published results.
        published_methods: the published methods to show.
        metric: the metric's name.
        width: of a bin, in frames.
        spread: what bands and whiskers show, see `plots.curves.curve`.
        at: frames at which scores are compared; None compares them where each run ends.
        seeds: seeds a method should have; None means the most it was started with on any task.
        valueless: runs without any value of the metric, which count as started.
        reading_notes: what was skipped in our files.
        published_notes: what is missing in the published results.
    """

    tasks: list[str]
    methods: list[str]
    runs: Runs
    curves: dict[tuple[str, str], Curve]
    scored: dict[tuple[str, str], Final]
    published: Published
    published_methods: list[str]
    metric: str
    width: int
    spread: str
    at: float | None
    seeds: int | None
    valueless: Sequence[RunFolder]
    reading_notes: list[str]
    published_notes: list[str]

    # What is missing.

    @property
    def notes(self) -> list[str]:
        """Sentences on our runs: what was skipped, what is missing, what ends elsewhere."""
        gaps = [note for method in self.methods for note in self._missing(method)]
        uneven = [note for method in self.methods for note in self._uneven_ends(method)]
        return [*self.reading_notes, *gaps, *uneven, *self._ends_apart()]

    def all_notes(self) -> list[str]:
        """Returns the notes on our runs and on the published results."""
        return [*self.notes, *self.published_notes]

    def _missing(self, method: str) -> list[str]:
        """Names the tasks on which the method lacks a score or seeds."""
        counts = {task: len(scores) for task, scores in self.own_points(method).items()}
        absent = [task for task in self.tasks if task not in counts]
        seeds = self.expected(method)
        short = [f"{task} ({count} of {seeds})" for task, count in counts.items() if count < seeds]
        notes = []
        if absent:
            notes.append(f"{method}: no score on {len(absent)} of {len(self.tasks)} tasks "
                         f"({listed(absent)}).")
        if short:
            notes.append(f"{method}: fewer seeds on {listed(short)}.")
        return notes

    def _uneven_ends(self, method: str) -> list[str]:
        """Says so if the method's scores are more than one bin apart in frames."""
        frames = [end for task in self.tasks if (task, method) in self.scored
                  for end in self.scored[task, method].frames]
        if not frames or max(frames) - min(frames) <= self.width:
            return []
        return [f"{method}: runs end between {short_frames(min(frames))} and "
                f"{short_frames(max(frames))} frames."]

    def _ends_apart(self) -> list[str]:
        """Names the tasks on which methods end more than one bin apart."""
        apart = []
        for task in self.tasks:
            ends = self._ends(task)
            if ends and max(ends.values()) - min(ends.values()) > self.width:
                first, last = min(ends, key=ends.__getitem__), max(ends, key=ends.__getitem__)
                apart.append(f"{task} ({first} {short_frames(ends[first])}, "
                             f"{last} {short_frames(ends[last])})")
        return [f"Methods end at different frames on {listed(apart, 2)}: their scores there "
                "are not of the same frames (--at compares at the same)."] if apart else []

    def expected(self, method: str) -> int:
        """Returns the number of seeds that the method should have on every task."""
        if self.seeds is not None:
            return self.seeds
        started: dict[str, set[str]] = {}
        for run in [*(run for found in self.runs.values() for run in found), *self.valueless]:
            if run.method == method:
                started.setdefault(run.task, set()).add(run.seed)
        return max(map(len, started.values()), default=0)

    # Labels.

    def label(self, method: str) -> str:
        """Returns the method's name with its number of seeds."""
        return f"{method} ({self._seeds_text(method)})"

    def score_label(self, method: str) -> str:
        """Returns the method's name with its number of seeds and the frames of its scores."""
        words = [self._seeds_text(method), self.frames_of([method])]
        return f"{method} ({', '.join(filter(None, words))})"

    def score_name(self, method: str) -> str:
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
        keys = [(task, method) for method in methods for task in self.tasks]
        return frames_range(frames for key in keys if key in self.scored
                            for frames in self.scored[key].frames)

    def _seeds_text(self, method: str) -> str:
        seeds = max((found.seeds for (_, name), found in self.curves.items() if name == method),
                    default=0)
        return f"{seeds} seed{'s' if seeds != 1 else ''}"

    def at_words(self) -> str:
        """Returns where scores are taken: ``at the end`` (of each run) or ``at 1M frames``."""
        return "at the end" if self.at is None else f"at {short_frames(self.at)} frames"

    # Parts of the study.

    def first_methods(self, most: int) -> Study:
        """Returns the study of the first `most` methods, with a note if that omits any."""
        if len(self.methods) <= most:
            return self
        note = (f"Only the first {most} of {len(self.methods)} methods are drawn; choose others "
                "with --methods.")
        return dataclasses.replace(
            self, methods=self.methods[:most], reading_notes=[note, *self.reading_notes])

    def pages(self, tasks: int) -> list[Study]:
        """Returns the study in parts of at most that many tasks."""
        return [dataclasses.replace(self, tasks=self.tasks[i : i + tasks])
                for i in range(0, len(self.tasks), tasks)]

    def only(self, methods: Collection[str]) -> Study:
        """Returns the study of these methods, on the tasks on which any of them has a score.

        If none has a score on any task, all tasks stay.
        """
        kept = [method for method in self.methods if method in methods]
        tasks = [task for task in self.tasks
                 if any((task, method) in self.scored for method in kept)]
        return dataclasses.replace(self, methods=kept, tasks=tasks or self.tasks)

    # Scores.

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


def build(
    runs: Runs,
    tasks: Sequence[str],
    methods: Sequence[str],
    published: Published,
    published_methods: Sequence[str] | None,
    *,
    metric: str,
    width: int,
    spread: str = "std",
    at: float | None = None,
    seeds: int | None = None,
    valueless: Sequence[RunFolder] = (),
    notes: Sequence[str] = (),
) -> Study:
    """Returns the study of these runs; `published_methods` None takes `DEFAULT_PUBLISHED`."""
    runs = {key: found for key, found in runs.items() if key[0] in tasks and key[1] in methods}
    if published_methods is None:
        suites = dict.fromkeys(suite_of(task) for task in tasks)
        published_methods = [name for suite in suites for name in DEFAULT_PUBLISHED.get(suite, ())]
    present = [name for name in published_methods if published.tasks(name) & set(tasks)]
    curves = {key: curve(found, width, spread) for key, found in runs.items()}
    end = max(found.x[-1] for found in curves.values())
    gaps = [note for name in present for note in _published_gaps(published, name, tasks, end)]
    gaps += [f"{published_label(name)}: nothing published for these tasks."
             for name in published_methods if name not in present]
    return Study(
        list(tasks), list(methods), runs, curves, finals(runs, width, at), published, present,
        metric, width, spread, at, seeds, valueless, list(notes), gaps,
    )


def _published_gaps(
    published: Published, method: str, tasks: Sequence[str], end: float
) -> list[str]:
    """Names tasks without a published score, and curves that lose seeds before frame `end`."""
    label, notes = published_label(method), []
    absent = [task for task in tasks if task not in published.tasks(method)]
    if absent:
        shown = ", ".join(absent[:4]) + (", ..." if len(absent) > 4 else "")
        notes.append(f"{label}: published for {len(tasks) - len(absent)} of {len(tasks)} tasks "
                     f"(not {shown}).")
    curves = [found for task in tasks if (found := published.curve(task, method)) is not None]
    fewer = [found.frames[found.seeds < found.seeds.max()] for found in curves]
    starts = [frames[0] for frames in fewer if len(frames) and frames[0] <= end]
    if starts:
        notes.append(f"{label}: fewer seeds on {len(starts)} of {len(curves)} task(s) from "
                     f"{short_frames(min(starts))} frames on.")
    return notes
