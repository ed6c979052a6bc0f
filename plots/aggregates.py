"""Aggregate scores over tasks and runs, with stratified bootstrap intervals.

The statistics and the resampling (runs within each task, tasks fixed) are those of Agarwal et
al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", arXiv 2108.13264.
Scores are a list over tasks of float64 [runs]; tasks may hold different numbers of runs, and
every task weighs the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

Scores = Sequence[np.ndarray]
_CHUNK = 2_000_000  # numbers resampled at once: 16 MB


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A statistic and its 95 % percentile bootstrap interval (NaN where no task has two runs)."""

    value: float
    low: float
    high: float


def mean(values: np.ndarray, weights: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Returns the mean over tasks of the mean over runs. Shapes as in `STATISTICS`."""
    return values @ weights


def median(values: np.ndarray, weights: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Returns the median over tasks of the mean over runs. Shapes as in `STATISTICS`."""
    return np.median(_task_means(values, ends), axis=-1)


def interquartile_mean(values: np.ndarray, weights: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Returns the mean of the middle half of all runs, by weight. Shapes as in `STATISTICS`.

    A run on the border of a quartile counts with the part of its weight inside. With equally many
    runs a task, and a multiple of 4 in all, this is ``scipy.stats.trim_mean(values, 0.25)``.
    """
    order = np.argsort(values, axis=-1)
    ordered = np.take_along_axis(values, order, -1)
    top = np.cumsum(weights[order], axis=-1)
    bottom = top - weights[order]
    inside = np.clip(np.minimum(top, 0.75) - np.maximum(bottom, 0.25), 0, None)
    return (ordered * inside).sum(-1) / inside.sum(-1)


STATISTICS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "mean": mean,
    "median": median,
    "iqm": interquartile_mean,
}
"""Statistics of values [..., runs] -> [...]: weights [runs] sum to 1, ends [tasks] are the index
after each task's last run."""


def aggregate(scores: Scores, resamples: int = 2000, seed: int = 0) -> dict[str, Estimate]:
    """Returns every statistic of `STATISTICS` with its interval."""
    values, weights, ends = _flatten(scores)
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in STATISTICS}
    if _can_resample(scores):
        for sample in _resample(scores, resamples, seed):
            for name, statistic in STATISTICS.items():
                drawn[name].append(statistic(sample, weights, ends))
    return {
        name: _estimate(float(statistic(values, weights, ends)), drawn[name])
        for name, statistic in STATISTICS.items()
    }


def profile(
    scores: Scores, thresholds: np.ndarray, resamples: int = 500, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the fraction of runs scoring above each threshold, and its interval, each [n]."""
    values, weights, _ = _flatten(scores)
    exact = _above(values, weights, thresholds)
    if not _can_resample(scores):
        return exact, exact, exact
    drawn = [_above(row, weights, thresholds)
             for sample in _resample(scores, resamples, seed) for row in sample]
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return exact, low, high


def improvement(x: Scores, y: Scores, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Returns the probability that a run of X beats a run of Y, averaged over their tasks.

    On each task the Mann-Whitney statistic U / (n m), ties counted half. `x` and `y` list the same
    tasks.
    """
    exact = float(np.mean([_wins(a[None], b[None])[0] for a, b in zip(x, y, strict=True)]))
    if not (_can_resample(x) or _can_resample(y)):
        return Estimate(exact, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    total = np.zeros(resamples)
    for a, b in zip(x, y, strict=True):
        rows = max(1, _CHUNK // (len(a) * len(b)))
        for start in range(0, resamples, rows):
            n = min(rows, resamples - start)
            drawn = [task[rng.integers(len(task), size=(n, len(task)))] for task in (a, b)]
            total[start : start + n] += _wins(*drawn)
    return _estimate(exact, [total / len(x)])


def _wins(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns P(a > b) + P(a = b) / 2 of each row: a [rows, n], b [rows, m] -> [rows]."""
    difference = a[:, :, None] - b[:, None, :]
    return (0.5 + 0.5 * np.sign(difference)).mean((1, 2))


def _above(values: np.ndarray, weights: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    order = np.argsort(values)
    below = np.concatenate([[0.0], np.cumsum(weights[order])])
    return np.clip(1 - below[np.searchsorted(values[order], thresholds, side="right")], 0, 1)


def _task_means(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    starts = np.concatenate([[0], ends[:-1]])
    return np.add.reduceat(values, starts, axis=-1) / (ends - starts)


def _flatten(scores: Scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    weights = np.concatenate([np.full(len(task), 1 / len(task) / len(scores)) for task in scores])
    return np.concatenate(scores), weights, np.cumsum([len(task) for task in scores])


def _can_resample(scores: Scores) -> bool:
    return any(len(task) > 1 for task in scores)


def _resample(scores: Scores, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields arrays [rows, runs] whose rows hold, task by task, runs drawn with replacement."""
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // sum(len(task) for task in scores))
    for start in range(0, resamples, rows):
        n = min(rows, resamples - start)
        yield np.concatenate(
            [task[rng.integers(len(task), size=(n, len(task)))] for task in scores], axis=1)


def _estimate(value: float, drawn: list[np.ndarray]) -> Estimate:
    if not drawn:
        return Estimate(value, np.nan, np.nan)
    low, high = np.percentile(np.concatenate(drawn), [2.5, 97.5])
    return Estimate(value, float(low), float(high))
