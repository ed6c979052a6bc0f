"""Figures over all tasks: aggregate scores, performance profiles, probability of improvement."""

from __future__ import annotations

import dataclasses

import numpy as np
from matplotlib.figure import Figure

from plots import style
from plots.aggregates import Estimate, aggregate, improvement, profile
from plots.normalise import Scale, normalise
from plots.study import Study

_NAMES = {"median": "Median", "iqm": "Interquartile mean", "mean": "Mean"}
MOST_PAIRS = 24


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One method's normalised scores: arrays [runs] by task.

    `coverage` is ``""``, or says on how many of the tasks there is a score.
    """

    method: str
    label: str
    is_own: bool
    coverage: str
    scores: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Summary:
    """The methods, the words of the scale, and what the reader must know."""

    entries: list[Entry]
    words: str
    notes: list[str]
    resamples: int

    def first_methods(self, most: int) -> Summary:
        """Returns the first `most` methods of ours and all published ones; says so if it cuts."""
        own = [entry for entry in self.entries if entry.is_own]
        if len(own) <= most:
            return self
        kept = [entry for entry in self.entries if not entry.is_own or entry in own[:most]]
        note = f"Only the first {most} of {len(own)} methods are drawn; choose with --methods."
        return dataclasses.replace(self, entries=kept, notes=[note, *self.notes])


def summarise(
    study: Study, scale: Scale, words: str, *, common_tasks: bool = False, resamples: int = 2000
) -> Summary:
    """Returns every method's normalised final scores.

    Tasks without a scale are left out and named. `common_tasks` keeps those tasks alone on which
    every method has a score; otherwise `Entry.coverage` says on how many tasks it stands.
    """
    notes = study.all_notes()
    unscaled = [task for task in study.tasks if task not in scale]
    if unscaled:
        notes.append(f"Left out, having no scale: {', '.join(unscaled)}.")
    found = [(name, study.score_name(name), True, study.own_points(name)) for name in study.methods]
    found += [(name, study.published_name(name), False, study.published_points(name))
              for name in study.published_methods]
    tasks = [task for task in study.tasks if task in scale]
    if common_tasks:
        tasks = [task for task in tasks if all(task in scores for *_, scores in found)]
        notes.append(f"Over the {len(tasks)} tasks on which every method has a score.")
    entries = []
    for method, label, is_own, scores in found:
        kept = {task: normalise(scores[task], scale[task]) for task in tasks if task in scores}
        if kept:
            some = "" if len(kept) == len(tasks) else f" ({len(kept)} of {len(tasks)} tasks)"
            entries.append(Entry(method, label, is_own, some, kept))
    return Summary(entries, words, notes, resamples)


def estimates(summary: Summary) -> list[tuple[Entry, dict[str, Estimate]]]:
    """Returns the aggregate statistics of every method."""
    return [(entry, aggregate(list(entry.scores.values()), summary.resamples))
            for entry in summary.entries]


def draw_aggregates(
    summary: Summary, found: list[tuple[Entry, dict[str, Estimate]]]
) -> Figure:
    """Returns median, interquartile mean and mean of every method, with 95 % intervals."""
    figure, panels = style.new_figure(0.24 * len(found) + 0.75, 1, len(_NAMES))
    for axes, (name, title) in zip(panels, _NAMES.items(), strict=True):
        axes.set_title(title)
        own = 0
        for row, (entry, values) in enumerate(found):
            value = values[name]
            if entry.is_own:
                looks = style.own_style(own)
                own += 1
                if np.isfinite(value.low):
                    axes.barh(row, value.high - value.low, 0.5, value.low, color=looks["color"],
                              alpha=0.35)
                axes.plot(value.value, row, color=looks["color"], marker="|", markersize=9,
                          markeredgewidth=2, linestyle="none")
            else:
                axes.plot(value.value, row, marker="D", markersize=4, color="0.3",
                          markerfacecolor="white", linestyle="none")
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        labels = [entry.label + entry.coverage for entry, _ in found] if axes is panels[0] else []
        axes.set_yticks(range(len(labels)), labels)
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.08)
    figure.supxlabel(f"Aggregate over tasks ({summary.words})", fontsize=8)
    style.footnotes(figure, [
        "Ours: bar at the estimate, band 95% stratified bootstrap interval over runs (none with "
        "one run a task). Diamonds: published, one value a task, so their median and "
        "interquartile mean are over tasks alone.", *summary.notes])
    return figure


def draw_profiles(summary: Summary) -> Figure:
    """Returns the fraction of our runs above each normalised score."""
    entries = [entry for entry in summary.entries if entry.is_own]
    height = 2.6 + style.legend_height(len(entries), 2)
    figure, (axes,) = style.new_figure(height, 1, 1, width=4.6)
    values = [np.concatenate(list(entry.scores.values())) for entry in entries]
    low = min((float(v.min()) for v in values), default=0.0)
    high = max((float(v.max()) for v in values), default=1.0)
    thresholds = np.linspace(min(low, 0.0), high, 201)
    for index, entry in enumerate(entries):
        looks = style.curve_style(index, len(thresholds))
        exact, below, above = profile(list(entry.scores.values()), thresholds,
                                      min(summary.resamples, 500))
        axes.fill_between(thresholds, below, above, color=looks["color"], alpha=0.2, linewidth=0)
        axes.plot(thresholds, exact, label=entry.label + entry.coverage, **looks)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(f"Score threshold ({summary.words})")
    axes.set_ylabel("Fraction of runs above")
    style.legend(figure, [axes], 2)
    style.footnotes(figure, ["Every task weighs the same. Band: 95% stratified bootstrap "
                             "interval.", *summary.notes])
    return figure


def improvements(
    summary: Summary, most: int | None = None
) -> tuple[list[tuple[str, str, int, Estimate]], int]:
    """Returns (X, Y, tasks in common, P(X > Y)), and how many pairs have tasks in common.

    First of ours and published methods, then of ours; the first `most` pairs (None: all).
    """
    own = [entry for entry in summary.entries if entry.is_own]
    others = [entry for entry in summary.entries if not entry.is_own]
    pairs = [(x, y) for x in own for y in others]
    pairs += [(x, y) for i, x in enumerate(own) for y in own[i + 1 :]]
    common = [(x, y, tasks) for x, y in pairs
              if (tasks := [task for task in x.scores if task in y.scores])]
    rows = [
        (x.label, y.label, len(tasks), improvement(
            [x.scores[task] for task in tasks], [y.scores[task] for task in tasks],
            summary.resamples))
        for x, y, tasks in common[:most]
    ]
    return rows, len(common)


def draw_improvements(
    summary: Summary, rows: list[tuple[str, str, int, Estimate]], pairs: int
) -> Figure:
    """Returns the probability that a run of X beats one of Y, for the first `MOST_PAIRS` rows.

    `pairs` are those that there are in all.
    """
    rows = rows[:MOST_PAIRS]
    notes = []
    if pairs > len(rows):
        notes = [f"{pairs - len(rows)} more pairs are not drawn; --figures tables writes all."]
    figure, (axes,) = style.new_figure(0.24 * len(rows) + 0.75, 1, 1)
    for row, (_, _, _, value) in enumerate(rows):
        colour = style.own_style(0)["color"]
        if np.isfinite(value.low):
            axes.barh(row, value.high - value.low, 0.5, value.low, color=colour, alpha=0.35)
        axes.plot(value.value, row, color=colour, marker="|", markersize=9, markeredgewidth=2)
    axes.axvline(0.5, color="0.3", linewidth=0.8, linestyle="--")
    axes.set_xlim(0, 1)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)),
                    [f"{x}  over  {y} [{tasks}]" for x, y, tasks, _ in rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("P(a run of the first scores higher than one of the second)")
    style.footnotes(figure, ["In brackets: tasks in common. Band: 95% stratified bootstrap "
                             "interval. A published method counts as one run a task.",
                             *notes, *summary.notes])
    return figure
