"""Normalised scores, and statistics over all tasks with stratified bootstrap intervals.

The statistics and the resampling (runs within each task, tasks fixed) are those of Agarwal et
al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", arXiv 2108.13264.
Scores are a list over tasks of float64 [runs]. Tasks may have different numbers of runs, and
every task has the same weight.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from dreamer.errors import UserError
from plots.labels import choose, suite_of
from plots.published import Published
from plots.study import Study, cut_note, most_methods

Scores = Sequence[np.ndarray]
Bounds = dict[str, tuple[float, float]]
"""By task, the scores that become 0 and 1. A task without bounds cannot be normalised."""

_BATCH = 2_000_000  # numbers resampled at once: 16 MB
_DMC_BEST = 1000.0  # a reward of at most 1 on each of an episode's 1000 frames


class Estimate(NamedTuple):
    """A statistic and its 95 % percentile bootstrap interval (NaN if no task has two runs)."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One method's normalised scores, arrays [runs] by task.

    `coverage` is ``""``, or says on how many of the tasks there is a score.
    """

    method: str
    label: str
    is_own: bool
    coverage: str
    scores: dict[str, np.ndarray]
    resamples: int

    @functools.cached_property
    def aggregates(self) -> dict[str, Estimate]:
        """Mean, median and interquartile mean over the tasks."""
        return aggregate(list(self.scores.values()), self.resamples)


Pair = tuple[str, str, int, Estimate]
"""The labels of X and Y, their number of common tasks, and P(X > Y)."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """All methods' normalised scores, the words of their scale, and notes for the reader."""

    entries: list[Entry]
    words: str
    notes: list[str]

    @property
    def own(self) -> list[Entry]:
        """The entries of our methods."""
        return [entry for entry in self.entries if entry.is_own]

    def first_methods(self) -> Summary:
        """Returns the `most_methods` of ours and all published ones."""
        published = [entry for entry in self.entries if not entry.is_own]
        drawn = most_methods({number: entry.scores for number, entry in enumerate(self.own)})
        return dataclasses.replace(self, entries=[self.own[i] for i in drawn] + published,
                                   notes=cut_note(self.own) + self.notes)

    @functools.cached_property
    def improvements(self) -> list[Pair]:
        """Each of our methods with each published one, then with each other of ours."""
        pairs = [(x, y) for x in self.own for y in self.entries if not y.is_own]
        pairs += itertools.combinations(self.own, 2)
        return [(x.label, y.label, len(tasks), improvement(
                    [x.scores[task] for task in tasks], [y.scores[task] for task in tasks],
                    x.resamples))
                for x, y in pairs if (tasks := [task for task in x.scores if task in y.scores])]


def summarise(study: Study, scale: str = "auto", *, resamples: int = 2000) -> Summary:
    """Returns every method's final scores, normalised by `scale` (see `bounds_of`).

    Tasks without bounds are left out and named.

    Raises:
        UserError: the scale cannot be used.
    """
    bounds, words = bounds_of(scale, study.tasks, study.published)
    notes, tasks = study.notes, [task for task in study.tasks if task in bounds]
    if unscaled := [task for task in study.tasks if task not in bounds]:
        notes.append("Left out of averages over tasks, because returns of unknown scales cannot be "
                     f"averaged (--normalize none does): {', '.join(unscaled)}.")
    found = [(name, study.label(name), True, study.own_points(name)) for name in study.methods]
    found += [(name, study.published_name(name), False, study.published_points(name))
              for name in study.published_methods]
    entries = []
    for method, label, is_own, scores in found:
        kept = {task: (scores[task] - bounds[task][0]) / (bounds[task][1] - bounds[task][0])
                for task in tasks if task in scores}
        if kept:
            coverage = "" if len(kept) == len(tasks) else f" ({len(kept)} of {len(tasks)} tasks)"
            entries.append(Entry(method, label, is_own, coverage, kept, resamples))
    return Summary(entries, words, notes)


def bounds_of(scale: str, tasks: Sequence[str], published: Published) -> tuple[Bounds, str]:
    """Returns the bounds of a scale, and its words for an axis.

    ``auto`` divides control tasks by their best return of 1000, and maps random play on Atari
    to 0 and a human gamer to 1; one task alone needs no scale. ``none`` keeps returns. With a
    published method, a return of 0 (on Atari random play) is 0 and the method's last score is 1.

    Raises:
        UserError: the scale is unknown, or no task has bounds.
    """
    choose([scale], ["auto", "none", *published.methods], "normalisation")
    unscaled = dict.fromkeys(tasks, (0.0, 1.0))
    if scale == "none":
        return unscaled, "return"
    bounds = {}
    for task in tasks:  # random play (0 if unknown) and the method's last score, where these differ
        low = published.point(task, "random")
        high = published.point(task, "human" if scale == "auto" else scale)
        zero = low.score if low else 0.0
        if high and high.score != zero:
            bounds[task] = zero, high.score
    if scale == "auto":
        bounds |= {task: (0.0, _DMC_BEST) for task in tasks if suite_of(task) == "dmc"}
        words = {"dmc": "return / 1000", "atari": "human-normalised score"}
        suites = {suite_of(task) for task in bounds}
        axis = " and ".join(words[suite] for suite in words if suite in suites)
        if not bounds and len(tasks) == 1:
            return unscaled, "return (no scale known)"
        return bounds, axis
    if not bounds:
        raise UserError(f"None of the tasks has a score of {scale!r}. Choose another --normalize, "
                        "such as none.")
    return bounds, f"score relative to published {scale}"


def aggregate(scores: Scores, resamples: int = 2000) -> dict[str, Estimate]:
    """Returns the mean, the median and the interquartile mean of the scores.

    The mean and the median are over tasks, of the mean over runs. The interquartile mean is the
    mean of the middle half of all runs by weight: a run on the border of a quartile counts with
    the part of its weight inside. If every task has equally many runs, and their total is a
    multiple of 4, it is ``scipy.stats.trim_mean(values, 0.25)``.
    """
    weights = _weights(scores)

    def statistics(*drawn: np.ndarray) -> np.ndarray:  # drawn: [..., runs] a task
        values = np.concatenate(drawn, axis=-1)
        order = np.argsort(values)
        top = np.cumsum(weights[order], axis=-1)
        inside = np.clip(np.minimum(top, 0.75) - np.maximum(top - weights[order], 0.25), 0, None)
        iqm = (np.take_along_axis(values, order, -1) * inside).sum(-1) / inside.sum(-1)
        medians = np.median([task.mean(-1) for task in drawn], axis=0)
        return np.stack([values @ weights, medians, iqm])

    values = statistics(*scores), *_interval(scores, statistics, resamples)
    return {name: Estimate(*map(float, row)) for name, row in zip(
        ("mean", "median", "iqm"), np.transpose(values), strict=True)}


def profile(
    scores: Scores, thresholds: np.ndarray, resamples: int = 500
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the fraction of runs above each threshold and the bounds of its interval, each [n].

    Without an interval, both bounds are the fraction itself.
    """
    weights = _weights(scores)

    def fractions(*drawn: np.ndarray) -> np.ndarray:
        values = np.concatenate(drawn, axis=-1)
        return np.stack([(values > threshold) @ weights for threshold in thresholds])

    exact, (low, high) = fractions(*scores), _interval(scores, fractions, resamples)
    return exact, np.where(np.isnan(low), exact, low), np.where(np.isnan(high), exact, high)


def improvement(x: Scores, y: Scores, resamples: int = 2000) -> Estimate:
    """Returns the probability that a run of X beats a run of Y, averaged over their tasks.

    On each task, listed by both, this is the Mann-Whitney statistic U / (n m); ties count half.
    """
    def wins(*drawn: np.ndarray) -> np.ndarray:  # x and y of each task in turn
        found = [np.sign(a[..., :, None] - b[..., None, :]).mean((-2, -1))
                 for a, b in zip(drawn[::2], drawn[1::2], strict=True)]
        return 0.5 + 0.5 * np.mean(found, axis=0)

    scores = [task for pair in zip(x, y, strict=True) for task in pair]
    size = max(len(a) * len(b) for a, b in zip(x, y, strict=True))
    return Estimate(*map(float, (wins(*scores), *_interval(scores, wins, resamples, size))))


def _weights(scores: Scores) -> np.ndarray:
    """Returns the weight of each run [runs]; they sum to 1, and to the same for every task."""
    return np.concatenate([np.full(len(task), 1 / len(task) / len(scores)) for task in scores])


def _interval(
    scores: Scores, statistic: Callable[..., np.ndarray], resamples: int, size: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the 2.5 and 97.5 percentiles of the statistic over resampled runs.

    Runs are drawn with replacement within each task; the percentiles are NaN if no task has two.
    `size` is the number of values that the statistic computes for one draw.
    """
    several = [i for i, task in enumerate(scores) if len(task) > 1]
    if not several:
        nothing = np.full(np.shape(statistic(*scores)), np.nan)
        return nothing, nothing

    def resampled(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        shape = drawn[0].shape[:-1]
        tasks = [np.broadcast_to(task, (*shape, len(task))) for task in scores]
        for i, values in zip(several, drawn, strict=True):
            tasks[i] = values
        return statistic(*tasks)

    size = max(size, sum(map(len, scores)))
    result = stats.bootstrap(
        [scores[i] for i in several], resampled, n_resamples=resamples, vectorized=True,
        batch=max(1, _BATCH // size), method="percentile", rng=np.random.default_rng(0))
    return result.confidence_interval.low, result.confidence_interval.high
