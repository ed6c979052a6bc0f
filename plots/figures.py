"""Learning curves, final scores, and figures over all tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style
from plots.aggregates import Estimate, Pair, Summary, profile
from plots.labels import published_label, short_frames, suite_of, task_title
from plots.study import Study, whiskers

MOST_PAIRS = 24
_METRICS = {"eval/return": "Evaluation return", "train/return": "Training return"}
_SPREADS = {"std": "one standard deviation of the seeds", "range": "least and greatest seed",
            "ci": "95% bootstrap interval of the mean"}
_STATISTICS = {"median": "Median", "iqm": "Interquartile mean", "mean": "Mean"}


# Learning curves.


def draw_curves(study: Study, end: float | None = None) -> Figure:
    """Returns learning curves, one panel a task.

    Our curves are coloured: the mean over seeds, with the spread as a band, dotted where a seed
    is missing. Published curves are grey and dashed, and published scores are horizontal lines.
    `end` is the last frame shown; None ends where the longest of our runs on these tasks ends.
    """
    tasks = study.tasks
    columns = min(5, len(tasks)) if len(tasks) != 4 else 2
    rows = math.ceil(len(tasks) / columns)
    width = style.WIDTH if columns > 2 else 2.4 + 2.4 * columns
    height = 3.2 if len(tasks) == 1 else (1.45 if columns > 3 else 2.1) * rows + 0.8
    figure, panels = style.new_figure(height, len(tasks), columns, width)
    for task, axes in zip(tasks, panels, strict=True):
        _curves_panel(axes, study, task, end)
        axes.title.set_fontsize(8 if columns < 5 else 7)
    figure.supxlabel("Environment frames, action repeat included", fontsize=8)
    figure.supylabel(_METRICS.get(study.metric, study.metric), fontsize=8)
    style.legend(figure, panels, 4 if columns > 2 else 2)
    style.footnotes(figure, [curve_caption(study), *study.notes])
    return figure


def draw_panels(study: Study) -> tuple[Figure, list[Figure]]:
    """Returns the legend of `draw_curves` and one figure a task, as wide as a phone."""
    figures = []
    for task in study.tasks:
        figure, (axes,) = style.new_figure(2.3, 1, 1, width=3.4)
        _curves_panel(axes, study, task, None)
        axes.set_xlabel("Environment frames")
        axes.set_ylabel(_METRICS.get(study.metric, study.metric))
        figures.append(figure)
    legend, (empty,) = style.new_figure(4.0, 1, 1, width=4.0)  # saved without its margins
    empty.remove()
    style.legend(legend, [figure.axes[0] for figure in figures], 2)
    return legend, figures


def _curves_panel(axes: Axes, study: Study, task: str, end: float | None) -> None:
    """Draws the task's curves, and names the methods that lack seeds."""
    end, short = end or study.end() or None, []
    for index, method in enumerate(study.methods):
        own = study.curves.get((task, method))
        if own is None:
            continue
        look, complete = style.curve_style(index, len(own.x)), own.count == own.seeds
        seeds = max(found.seeds for (_, name), found in study.curves.items() if name == method)
        label = f"{method} ({seeds} seed{'s' if seeds != 1 else ''})"
        axes.fill_between(own.x, own.low, own.high, color=look["color"], alpha=0.2, linewidth=0)
        axes.plot(own.x, _masked(own.mean, complete), label=label, zorder=3, **look)
        if not complete.all():
            dotted = {**look, "linestyle": ":", "linewidth": 1.2}
            axes.plot(own.x, _masked(own.mean, ~complete), zorder=3, **dotted)
        if own.seeds < (expected := study.expected(method)):
            short.append(f"{method}: {own.seeds} of {expected} seeds")
    for index, method in enumerate(study.published_methods):
        look, label = style.published_style(index), published_label(method)
        if (curve := study.published.curve(task, method)) is not None:
            n = int((curve.frames <= (end or math.inf)).sum()) + 1  # to the panel's edge
            x, mean, std = curve.frames[:n], curve.mean[:n], curve.std[:n]
            axes.fill_between(x, mean - std, mean + std, color="0.5", alpha=0.12, linewidth=0)
            axes.plot(x, mean, label=label, linewidth=1.1, zorder=2, **look)
        elif (point := study.published.point(task, method)) is not None:
            frames = f" ({short_frames(point.frames)})" if point.frames else ""
            axes.axhline(point.score, label=label + frames, linewidth=0.9, zorder=1.5, **look)
    if end is not None:
        axes.set_xlim(0, end * 1.02)
    style.curve_axes(axes)
    axes.set_title(task_title(task))
    if short:
        axes.text(0.98, 0.03, "\n".join(short[:4]), transform=axes.transAxes, ha="right",
                  va="bottom", fontsize=5.5)


def _masked(values: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Returns the values where `keep` holds, else NaN.

    The value before each kept piece stays too, so that the pieces of a line meet.
    """
    near = keep.copy()
    near[:-1] |= keep[1:]
    return np.where(near, values, np.nan)


def curve_caption(study: Study) -> str:
    """Returns the meaning of the lines, the bands and the greys."""
    text = (f"Coloured: mean over seeds in bins of {short_frames(study.width)} frames, dotted "
            f"where a seed is missing; band: {_SPREADS[study.spread]}.")
    return text + (" Grey: published; band: one standard deviation; straight line: score at the "
                   "frames named." if study.published_methods else "")


# Bars of scores.


def draw_bars(study: Study) -> Figure:
    """Returns bars of final scores: ours with a dot for each seed, published ones hatched."""
    published = [(study.published_name(name),
                  {task: scores[0] for task, scores in study.published_points(name).items()})
                 for name in study.published_methods]
    figure = bar_figure(study, study.tasks, published)
    figure.supylabel(f"{_METRICS.get(study.metric, study.metric)} {study.at_words()}", fontsize=8)
    caption = "Dots: single seeds. White, hatched: published. In brackets: frames of the scores."
    style.footnotes(figure, [bar_caption(study), caption, *study.notes])
    return figure


def bar_figure(
    study: Study, tasks: Sequence[str], published: Sequence[tuple[str, Mapping[str, float]]],
    groups_a_row: int = 5,
) -> Figure:
    """Returns bars in groups by task: our methods, then the published ones.

    Control tasks share axes, at most `groups_a_row` of them. If there are other tasks, each task
    has its own axes, because their scores have no common scale. `published` holds labels, each
    with scores by task.
    """
    shared = all(suite_of(task) == "dmc" for task in tasks)
    groups = min(groups_a_row, len(tasks)) if shared else 1
    columns = 1 if shared else min(4, len(tasks))
    count = math.ceil(len(tasks) / groups)
    width = style.WIDTH
    if columns == 1:
        width = min(width, 3.6 + 0.9 * (groups - 1 + 5 - groups_a_row))
    # A single row must be tall enough for the label beside it.
    height = max(1.5 * math.ceil(count / columns) + 0.9, 3.0)
    figure, panels = style.new_figure(height, count, columns, width)
    for number, axes in enumerate(panels):
        part = tasks[number * groups : (number + 1) * groups]
        _bars_panel(axes, study, part, published)
        axes.set_xlim(-0.5, groups - 0.5)
        axes.set_xticks(range(len(part)), [task_title(task) for task in part])
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="x", visible=False)
    style.legend(figure, panels, 3 if width > 6 else 2)
    return figure


def _bars_panel(
    axes: Axes, study: Study, tasks: Sequence[str],
    published: Sequence[tuple[str, Mapping[str, float]]],
) -> None:
    total = len(study.methods) + len(published)
    width = 0.84 / total
    offset = (np.arange(total) - (total - 1) / 2) * width
    for index, method in enumerate(study.methods):
        for x, task in zip(np.arange(len(tasks)) + offset[index], tasks, strict=True):
            if (task, method) not in study.scored:
                continue
            scores = study.scored[task, method].scores
            axes.bar(x, scores.mean(), width, label=study.label(method),
                     **style.bar_style(index, is_own=True))
            if len(scores) > 1:
                axes.errorbar(x, scores.mean(), whiskers(scores, study.spread), color="black",
                              linewidth=0.8, capsize=1.5)
            axes.plot(np.full(len(scores), x), scores, "o", color="black", markersize=2,
                      markerfacecolor="white", markeredgewidth=0.4, zorder=4)
    for index, (label, by_task) in enumerate(published):
        for i, task in enumerate(tasks):
            if task in by_task:
                axes.bar(i + offset[len(study.methods) + index], by_task[task], width, label=label,
                         **style.bar_style(index, is_own=False))


def bar_caption(study: Study) -> str:
    """Returns the meaning of scores and whiskers."""
    return f"Scores: mean over seeds; whiskers: {_SPREADS[study.spread]}."


# Figures over all tasks.


def draw_aggregates(summary: Summary) -> Figure:
    """Returns median, interquartile mean and mean of every method, with 95 % intervals."""
    entries, own = summary.entries, summary.own
    figure, panels = style.new_figure(0.24 * len(entries) + 0.75, 3, 3)
    for axes, (name, title) in zip(panels, _STATISTICS.items(), strict=True):
        axes.set_title(title)
        for row, entry in enumerate(entries):
            value = entry.aggregates[name]
            if entry.is_own:
                _estimate(axes, row, value, style.own_style(own.index(entry))["color"])
            else:
                axes.plot(value.value, row, marker="D", markersize=4, color="0.3",
                          markerfacecolor="white", linestyle="none")
        _rows_axis(axes, [entry.label + entry.coverage for entry in entries])
        if axes is not panels[0]:
            axes.set_yticks([])
        axes.margins(x=0.08)
    figure.supxlabel(f"Aggregate over tasks ({summary.words})", fontsize=8)
    style.footnotes(figure, [
        "Ours: bar at the estimate, band 95% stratified bootstrap interval over runs (none with "
        "one run a task). Diamonds: published, one value a task, so their median and "
        "interquartile mean are over tasks only.", *summary.notes])
    return figure


def draw_profiles(summary: Summary) -> Figure:
    """Returns the fraction of our runs above each normalised score."""
    entries = summary.own
    figure, (axes,) = style.new_figure(2.6, 1, 1, width=4.6)
    values = [score for entry in entries for scores in entry.scores.values() for score in scores]
    thresholds = np.linspace(min([0.0, *values]), max(values, default=1.0), 201)
    for index, entry in enumerate(entries):
        look = style.curve_style(index, len(thresholds))
        exact, low, high = profile(list(entry.scores.values()), thresholds,
                                   min(entry.resamples, 500))
        axes.fill_between(thresholds, low, high, color=look["color"], alpha=0.2, linewidth=0)
        axes.plot(thresholds, exact, label=entry.label + entry.coverage, **look)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(f"Score threshold ({summary.words})")
    axes.set_ylabel("Fraction of runs above")
    style.legend(figure, [axes], 2)
    style.footnotes(figure, ["Every task weighs the same. Band: 95% stratified bootstrap "
                             "interval.", *summary.notes])
    return figure


def draw_improvements(summary: Summary, pairs: Sequence[Pair]) -> Figure:
    """Returns the probability that a run of X beats one of Y, for the first `MOST_PAIRS` pairs."""
    total, pairs, notes = len(pairs), pairs[:MOST_PAIRS], list(summary.notes)
    if total > len(pairs):
        notes.insert(0, f"{total - len(pairs)} more pairs are not drawn; --figures tables writes "
                     "all.")
    figure, (axes,) = style.new_figure(0.24 * len(pairs) + 0.75, 1, 1)
    for row, (*_, value) in enumerate(pairs):
        _estimate(axes, row, value, style.own_style(0)["color"])
    axes.axvline(0.5, color="0.3", linewidth=0.8, linestyle="--")
    axes.set_xlim(0, 1)
    _rows_axis(axes, [f"{x}  over  {y} [{tasks}]" for x, y, tasks, _ in pairs])
    axes.set_xlabel("P(a run of the first scores higher than one of the second)")
    style.footnotes(figure, ["In brackets: tasks in common. Band: 95% stratified bootstrap "
                             "interval. A published method counts as one run a task.", *notes])
    return figure


def _estimate(axes: Axes, row: int, value: Estimate, colour: str) -> None:
    if np.isfinite(value.low):
        axes.barh(row, value.high - value.low, 0.5, value.low, color=colour, alpha=0.35)
    axes.plot(value.value, row, color=colour, marker="|", markersize=9, markeredgewidth=2,
              linestyle="none")


def _rows_axis(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
