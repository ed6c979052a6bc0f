"""Curves and final scores over the seeds of a method on a task."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from plots.loading import Run

Runs = dict[tuple[str, str], list[Run]]
"""Runs by (task, method), each list in the order of the seeds."""


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


def group(runs: Iterable[Run]) -> Runs:
    """Returns the runs by (task, method)."""
    grouped: Runs = {}
    for run in runs:
        grouped.setdefault((run.task, run.method), []).append(run)
    for found in grouped.values():
        found.sort(key=lambda run: (len(run.seed), run.seed))
    return grouped


def curve(runs: Sequence[Run], width: int, spread: str = "std", resamples: int = 1000) -> Curve:
    """Returns the mean over seeds and its spread.

    Between its first and last bin, a run is interpolated linearly. Runs evaluated at different
    steps therefore do not make the mean jump between different sets of seeds.

    Args:
        runs: the seeds.
        width: of a bin, in frames.
        spread: ``std`` is one standard deviation of the seeds (ddof 0), ``ci`` the 95 % percentile
            bootstrap interval of the mean over seeds, ``range`` the lowest and highest seed.
        resamples: of the bootstrap.
    """
    x = np.arange(min(run.x[0] for run in runs), max(run.x[-1] for run in runs) + width, width,
                  dtype=np.int64)
    y = np.array([np.interp(x, run.x, run.y, left=np.nan, right=np.nan) for run in runs])
    present = np.isfinite(y)  # [runs, n]
    keep = present.any(axis=0)
    x, y, present = x[keep], y[:, keep], present[:, keep]
    mean = np.nanmean(y, axis=0)
    if spread == "std":
        std = np.nanstd(y, axis=0)
        low, high = mean - std, mean + std
    elif spread == "ci":
        low, high = _bootstrap_band(y, present, resamples)
    else:
        low, high = np.nanmin(y, axis=0), np.nanmax(y, axis=0)
    return Curve(x, mean, low, high, present.sum(axis=0), len(runs))


def _bootstrap_band(
    y: np.ndarray, present: np.ndarray, resamples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the 2.5 and 97.5 percentiles [n] of the mean over resampled seeds."""
    n = len(y)
    draws = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=resamples)  # [R, runs]
    weight = draws @ present.astype(np.float64)
    total = draws @ np.where(present, y, 0.0)
    with np.errstate(invalid="ignore"):
        means = total / np.where(weight > 0, weight, np.nan)  # NaN: no drawn seed has a value
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
    """Returns how far the spread of scores [n] reaches below and above their mean, [2, 1].

    `spread` is that of `curve`.
    """
    mean = scores.mean()
    if spread == "std":
        low, high = mean - scores.std(), mean + scores.std()
    elif spread == "ci":
        draws = np.random.default_rng(0).choice(scores, (2000, len(scores))).mean(1)
        low, high = np.percentile(draws, [2.5, 97.5])
    else:
        low, high = scores.min(), scores.max()
    return np.array([[max(mean - low, 0.0)], [max(high - mean, 0.0)]])
