"""What a set of figures is about: the chosen tasks and methods, their curves and scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from plots.curves import Curve, Final, Runs, curve, finals, missing, uneven
from plots.finding import Place
from plots.names import published_label, suite_of
from plots.numbers import frames_range, short_frames
from plots.published import Point, Published

DEFAULT_PUBLISHED = {
    "dmc": ("dreamer_tf2_release", "dreamer", "planet", "d4pg", "a3c"),
    "atari": ("rainbow", "dqn", "human", "random"),
}


@dataclasses.dataclass(frozen=True)
class Study:
    """Everything the figures draw.

    `tasks` and `methods` are those to show, in order; `published_methods` those drawn beside
    them. `at` is the number of frames at which scores are compared (None: each run's end).
    `width` is the bin width in frames, `spread` what bands and whiskers show, and `seeds` the
    number of seeds a method should have (None: the largest that it was started with on any task).
    `lost` are runs without any value of the metric, which count as started. `reading_notes` say
    what was met in the files, `published_notes` what in the published figures.
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
    lost: Sequence[Place]
    reading_notes: list[str]
    published_notes: list[str]

    @property
    def notes(self) -> list[str]:
        """What the reader must know of our runs: what was skipped, what is missing."""
        return [*self.reading_notes,
                *missing(self.scored, self.tasks, self.methods, self.expected),
                *uneven(self.scored, self.tasks, self.methods, self.width)]

    def all_notes(self) -> list[str]:
        """Returns what to say below a figure that shows published methods too."""
        return [*self.notes, *self.published_notes]

    def expected(self, method: str) -> int:
        """Returns the number of seeds that the method should have on every task."""
        if self.seeds is not None:
            return self.seeds
        started = {task: {run.seed for run in found}
                   for (task, name), found in self.runs.items() if name == method}
        for place in self.lost:
            if place.method == method:
                started.setdefault(place.task, set()).add(place.seed)
        return max(map(len, started.values()), default=0)

    def seeds_of(self, method: str) -> int:
        """Returns the largest number of seeds that the method has on any task."""
        return max((found.seeds for (_, name), found in self.curves.items() if name == method),
                   default=0)

    def label(self, method: str) -> str:
        """Returns the method's name with its number of seeds."""
        return f"{method} ({self._seed_words(method)})"

    def score_label(self, method: str) -> str:
        """Returns the method's name with its number of seeds and the frames of its scores."""
        words = [self._seed_words(method), self.frames_of([method])]
        return f"{method} ({', '.join(word for word in words if word)})"

    def score_name(self, method: str) -> str:
        """Returns the method's name with the frames of its scores."""
        frames = self.frames_of([method])
        return f"{method} ({frames})" if frames else method

    def frames_of(self, methods: Iterable[str]) -> str:
        """Returns the frames of the methods' scores: ``150k``, ``40k-150k``, ``""`` if none."""
        keys = [(task, method) for method in methods for task in self.tasks]
        return frames_range(frames for key in keys if key in self.scored
                            for frames in self.scored[key].frames)

    def _seed_words(self, method: str) -> str:
        seeds = self.seeds_of(method)
        return f"{seeds} seed{'s' if seeds != 1 else ''}"

    def at_words(self) -> str:
        """Returns where scores are taken: ``at the end`` (of each run) or ``at 1M frames``."""
        return "at the end" if self.at is None else f"at {short_frames(self.at)} frames"

    def first_methods(self, most: int) -> Study:
        """Returns the study of the first `most` methods alone, which says so if there are more."""
        if len(self.methods) <= most:
            return self
        note = (f"Only the first {most} of {len(self.methods)} methods are drawn; choose others "
                "with --methods.")
        return dataclasses.replace(
            self, methods=self.methods[:most], reading_notes=[note, *self.reading_notes])

    def pages(self, tasks: int) -> list[Study]:
        """Returns the study cut into parts of at most that many tasks."""
        starts = range(0, len(self.tasks), tasks)
        return [dataclasses.replace(self, tasks=self.tasks[i : i + tasks]) for i in starts]

    def only(self, methods: Collection[str]) -> Study:
        """Returns the study of these methods, on the tasks on which any of them has a score.

        Where none has a score on any task, all tasks stay.
        """
        kept = [method for method in self.methods if method in methods]
        tasks = [task for task in self.tasks
                 if any((task, method) in self.scored for method in kept)]
        return dataclasses.replace(self, methods=kept, tasks=tasks or self.tasks)

    def ends(self, task: str) -> list[float]:
        """Returns the frames of our scores of the task, ascending: of each method its greatest.

        An end at most a bin before a later one is not told apart from it.
        """
        found = {float(self.scored[task, method].frames.max())
                 for method in self.methods if (task, method) in self.scored}
        kept: list[float] = []
        for end in sorted(found, reverse=True):
            if not kept or kept[-1] - end > self.width:
                kept.append(end)
        return kept[::-1]

    def published_at(self, task: str, method: str) -> list[Point]:
        """Returns the published scores to set beside ours, each of other frames.

        At `at` frames, or else at each of `ends`, as far as the method has a curve there;
        otherwise its score at the most frames.
        """
        last = self.published.point(task, method)
        if last is None:
            return []
        targets = self.ends(task) if self.at is None else [self.at]
        points = [self.published.point(task, method, end) or last for end in targets] or [last]
        return list({point.frames: point for point in points}.values())

    def published_point(self, task: str, method: str) -> Point | None:
        """Returns the last of `published_at`: that beside the longest of our runs of the task."""
        return next(reversed(self.published_at(task, method)), None)

    def published_name(self, method: str) -> str:
        """Returns the method's label with the frames of its scores (`published_point`)."""
        points = [point for task in self.tasks if (point := self.published_point(task, method))]
        frames = frames_range(point.frames for point in points)
        return published_label(method) + (f" ({frames})" if frames else "")

    def own_points(self, method: str) -> dict[str, np.ndarray]:
        """Returns the method's final scores by task."""
        return {task: self.scored[task, method].scores
                for task in self.tasks if (task, method) in self.scored}

    def published_points(self, method: str) -> dict[str, np.ndarray]:
        """Returns the published scores by task, as if each were one run."""
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
    lost: Sequence[Place] = (),
    notes: Sequence[str] = (),
) -> Study:
    """Returns the study of these runs; `published_methods` None takes the suites' usual ones."""
    runs = {key: found for key, found in runs.items() if key[0] in tasks and key[1] in methods}
    if published_methods is None:
        suites = dict.fromkeys(suite_of(task) for task in tasks)
        published_methods = [name for suite in suites for name in DEFAULT_PUBLISHED.get(suite, ())]
    there = [name for name in published_methods if published.tasks(name) & set(tasks)]
    scored = finals(runs, width, at)
    curves = {key: curve(found, width, spread) for key, found in runs.items()}
    end = max(found.x[-1] for found in curves.values())
    gaps = _published_gaps(published, there, tasks, end)
    gaps += [f"{published_label(name)}: nothing published for these tasks."
             for name in published_methods if name not in there]
    return Study(
        list(tasks), list(methods), runs, curves, scored, published, there, metric, width,
        spread, at, seeds, lost, list(notes), gaps,
    )


def _published_gaps(
    published: Published, methods: Sequence[str], tasks: Sequence[str], end: float
) -> list[str]:
    said = []
    for method in methods:
        absent = [task for task in tasks if task not in published.tasks(method)]
        if absent:
            shown = ", ".join(absent[:4]) + (", ..." if len(absent) > 4 else "")
            said.append(f"{published_label(method)}: published for {len(tasks) - len(absent)} of "
                        f"{len(tasks)} tasks (not {shown}).")
        said += _fewer_published_seeds(published, method, tasks, end)
    return said


def _fewer_published_seeds(
    published: Published, method: str, tasks: Sequence[str], end: float
) -> list[str]:
    """Says from where on, up to frame `end`, curves stand on fewer seeds than they began with."""
    curves = [found for task in tasks if (found := published.curve(task, method)) is not None]
    starts = [found.frames[found.seeds < found.seeds.max()] for found in curves]
    starts = [frames[0] for frames in starts if len(frames) and frames[0] <= end]
    if not starts:
        return []
    return [f"{published_label(method)}: fewer seeds on {len(starts)} of {len(curves)} "
            f"task(s) from {short_frames(min(starts))} frames on."]
