"""From runs to curves over seeds, final scores, and what is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from plots.loading import Run
from plots.names import in_order
from plots.numbers import short_frames

Runs = dict[tuple[str, str], list[Run]]
"""Runs by (task, method), each list in the order of the seeds."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """A method's curve on one task, arrays [n].

    `x` frames; `mean`, `low`, `high` over the seeds present; `count` of these seeds; `seeds` of
    them in all. Where count < seeds some seed has not begun or has already ended.
    """

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray
    seeds: int


@dataclasses.dataclass(frozen=True)
class Final:
    """Final scores of one method on one task: a float64 [seeds] score and its frames, by seed.

    `asked` is the number of runs; fewer scores mean that some never reached the frames asked for.
    """

    scores: np.ndarray
    frames: np.ndarray
    asked: int


def group(runs: Iterable[Run]) -> Runs:
    """Returns the runs by (task, method)."""
    grouped: Runs = {}
    for run in runs:
        grouped.setdefault((run.task, run.method), []).append(run)
    for found in grouped.values():
        found.sort(key=lambda run: (len(run.seed), run.seed))
    return grouped


def tasks_of(runs: Runs) -> list[str]:
    """Returns the tasks in the paper's order."""
    return in_order(task for task, _ in runs)


def methods_of(runs: Runs) -> list[str]:
    """Returns the methods by name."""
    return sorted({method for _, method in runs})


def table(runs: Sequence[Run], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns frames int64 [n] and the runs' values float64 [runs, n], NaN outside a run's range.

    Between its own first and last bin a run is interpolated linearly, so that runs evaluated at
    different steps do not make the mean jump between different sets of seeds.
    """
    first = min(run.x[0] for run in runs)
    last = max(run.x[-1] for run in runs)
    x = np.arange(first, last + width, width, dtype=np.int64)
    rows = [np.interp(x, run.x, run.y, left=np.nan, right=np.nan) for run in runs]
    return x, np.array(rows)


def curve(runs: Sequence[Run], width: int, spread: str = "std", resamples: int = 1000) -> Curve:
    """Returns the mean over seeds and its spread.

    `spread` is ``std`` (one standard deviation of the seeds around the mean, ddof 0), ``ci`` (95 %
    percentile bootstrap interval of the mean over seeds) or ``range`` (least and greatest seed).
    """
    x, y = table(runs, width)
    there = np.isfinite(y)
    keep = there.any(axis=0)
    x, y, there = x[keep], y[:, keep], there[:, keep]
    mean = np.nanmean(y, axis=0)
    if spread == "std":
        std = np.nanstd(y, axis=0)
        low, high = mean - std, mean + std
    elif spread == "ci":
        low, high = _bootstrap_band(y, there, resamples)
    else:
        low, high = np.nanmin(y, axis=0), np.nanmax(y, axis=0)
    return Curve(x, mean, low, high, there.sum(axis=0), len(runs))


def _bootstrap_band(
    y: np.ndarray, there: np.ndarray, resamples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the 2.5 and 97.5 percentiles of the mean over resampled seeds, each [n]."""
    n = len(y)
    draws = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=resamples)  # [R, runs]
    weight = draws @ there.astype(np.float64)
    total = draws @ np.where(there, y, 0.0)
    with np.errstate(invalid="ignore"):
        means = total / np.where(weight > 0, weight, np.nan)  # NaN: no seed of the draw is there
    low, high = np.nanpercentile(means, [2.5, 97.5], axis=0)
    return low, high


def final(runs: Sequence[Run], width: int, at: float | None = None) -> Final:
    """Returns each run's score: in its last bin, or in the bin of `at` frames if it got there.

    A run that ended less than one bin before `at` counts as having got there.
    """
    scores, frames = [], []
    for run in runs:
        if at is None:
            scores.append(run.y[-1])
            frames.append(run.x[-1])
        elif run.x[0] - width < at <= run.x[-1] + width:
            scores.append(float(np.interp(at, run.x, run.y)))
            frames.append(min(max(at, run.x[0]), run.x[-1]))
    return Final(np.array(scores, np.float64), np.array(frames, np.float64), len(runs))


def finals(runs: Runs, width: int, at: float | None = None) -> dict[tuple[str, str], Final]:
    """Returns `final` for every (task, method) that has a score."""
    found = {key: final(group_, width, at) for key, group_ in runs.items()}
    return {key: value for key, value in found.items() if len(value.scores)}


def missing(
    scored: dict[tuple[str, str], Final],
    tasks: Sequence[str],
    methods: Sequence[str],
    expected: Callable[[str], int],
) -> list[str]:
    """Says which tasks and seeds are missing, by method.

    `expected` tells how many seeds a method should have on every task.
    """
    said = []
    for method in methods:
        counts = {task: len(scored[task, method].scores)
                  for task in tasks if (task, method) in scored}
        absent = [task for task in tasks if task not in counts]
        seeds = expected(method)
        short = [f"{task} ({count} of {seeds})" for task, count in counts.items() if count < seeds]
        if absent:
            said.append(f"{method}: no score on {len(absent)} of {len(tasks)} tasks "
                        f"({listed(absent)}).")
        if short:
            said.append(f"{method}: fewer seeds on {listed(short)}.")
    return said


def uneven(
    scored: dict[tuple[str, str], Final], tasks: Sequence[str], methods: Sequence[str], width: int
) -> list[str]:
    """Says which scores are of different frames: a method's own, and those of one task.

    Frames that differ by at most `width`, a bin, count as the same.
    """
    said = []
    for method in methods:
        frames = [scored[task, method].frames for task in tasks if (task, method) in scored]
        if not frames:
            continue
        low, high = np.concatenate(frames).min(), np.concatenate(frames).max()
        if high - low > width:
            said.append(f"{method}: runs end between {short_frames(low)} and "
                        f"{short_frames(high)} frames.")
    apart = []
    for task in tasks:
        ends = {method: scored[task, method].frames.max()
                for method in methods if (task, method) in scored}
        if ends and max(ends.values()) - min(ends.values()) > width:
            first, last = min(ends, key=ends.__getitem__), max(ends, key=ends.__getitem__)
            apart.append(f"{task} ({first} {short_frames(ends[first])}, "
                         f"{last} {short_frames(ends[last])})")
    if apart:
        said.append(f"Methods end at different frames on {listed(apart, 2)}: their scores there "
                    "are not of the same frames (--at compares at the same).")
    return said


def listed(words: Sequence[str], most: int = 6) -> str:
    """Returns the first words, and how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more
