"""Learning curves, one panel a task, and bars of final scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style
from plots.curves import Curve
from plots.names import published_label, suite_of, task_title
from plots.numbers import short_frames
from plots.published import PublishedCurve
from plots.study import Study

_GROUPS_A_ROW = 5
_SPREADS = {"std": "one standard deviation of the seeds", "range": "least and greatest seed",
            "ci": "95% bootstrap interval of the mean"}


def draw_curves(study: Study, end: float | None = None) -> Figure:
    """Returns one panel a task.

    Ours in colour: the mean over seeds, with the spread as a band, dotted where some seed is
    missing. Published curves are dashed in grey, and published scores horizontal lines. `end` is
    the last frame shown (None: where the longest of our runs on these tasks ends).
    """
    tasks = study.tasks
    columns = min(5, len(tasks)) if len(tasks) != 4 else 2
    rows = math.ceil(len(tasks) / columns)
    width = style.WIDTH if columns > 2 else 2.4 + 2.4 * columns
    height = 3.2 if len(tasks) == 1 else (1.45 if columns > 3 else 2.1) * rows + 0.8
    abreast = 4 if columns > 2 else 2
    height += style.legend_height(len(study.methods) + len(study.published_methods), abreast)
    figure, panels = style.new_figure(height, rows, columns, width)
    if end is None:
        ends = [found.x[-1] for (task, _), found in study.curves.items() if task in tasks]
        end = float(max(ends, default=0)) or None
    for task, axes in zip(tasks, panels, strict=False):
        short = _curves_panel(axes, study, task, end)
        axes.set_title(task_title(task), fontsize=8 if columns < 5 else 7,
                       pad=4 + 6.5 * len(short))
        if short:
            axes.text(0.5, 1.02, "\n".join(short), transform=axes.transAxes, ha="center",
                      va="bottom", fontsize=5.5)
    for axes in panels[len(tasks) :]:
        axes.set_visible(False)
    figure.supxlabel("Environment frames, action repeat included", fontsize=8)
    figure.supylabel(_metric_words(study.metric), fontsize=8)
    style.legend(figure, panels, abreast)
    style.footnotes(figure, [curve_caption(study), *study.all_notes()])
    return figure


def draw_panel(study: Study, task: str, end: float | None = None) -> Figure:
    """Returns the panel of one task alone, of a phone's width, without legend and notes."""
    figure, (axes,) = style.new_figure(2.3, 1, 1, width=3.4)
    short = _curves_panel(axes, study, task, end)
    axes.set_title("\n".join([task_title(task), *short]))
    axes.set_xlabel("Environment frames")
    axes.set_ylabel(_metric_words(study.metric))
    return figure


def draw_legend(study: Study, end: float | None = None) -> Figure:
    """Returns the legend of all panels by itself."""
    _, panels = style.new_figure(2, 1, max(1, len(study.tasks)))
    for task, axes in zip(study.tasks, panels, strict=False):
        _curves_panel(axes, study, task, end)
    figure, (empty,) = style.new_figure(4.0, 1, 1, width=4.0)  # saved without its margins
    empty.remove()
    style.legend(figure, panels, 2)
    return figure


def _curves_panel(axes: Axes, study: Study, task: str, end: float | None) -> list[str]:
    """Draws the task's curves; returns what is missing on it, at most four lines."""
    short = []
    for index, method in enumerate(study.methods):
        found_own = study.curves.get((task, method))
        if found_own is None:
            short.append(f"{method}: no runs")
            continue
        _own_curve(axes, found_own, study.label(method),
                   style.curve_style(index, len(found_own.x)))
        expected = study.expected(method)
        if found_own.seeds < expected:
            short.append(f"{method}: {found_own.seeds} of {expected} seeds")
    for index, method in enumerate(study.published_methods):
        looks = style.published_style(index)
        found = study.published.curve(task, method)
        point = study.published.point(task, method)
        if found is not None:
            _published_curve(axes, found, published_label(method), looks, end)
        elif point is not None:
            frames = f" ({short_frames(point.frames)})" if point.frames else ""
            axes.axhline(point.score, label=published_label(method) + frames, linewidth=0.9,
                         zorder=1.5, **looks)
    if end is not None:
        axes.set_xlim(0, end * 1.02)
    style.score_axis(axes)
    style.frames_axis(axes)
    return short[:3] + ([f"and {len(short) - 3} more"] if len(short) > 3 else [])


def _own_curve(axes: Axes, found: Curve, label: str, looks: dict[str, Any]) -> None:
    colour = looks["color"]
    axes.fill_between(found.x, found.low, found.high, color=colour, alpha=0.2, linewidth=0)
    complete = found.count == found.seeds
    axes.plot(found.x, _stretch(found.mean, complete), label=label, zorder=3, **looks)
    if not complete.all():
        dotted = {**looks, "linestyle": ":", "linewidth": 1.2}
        axes.plot(found.x, _stretch(found.mean, ~complete), zorder=3, **dotted)


def _published_curve(
    axes: Axes, found: PublishedCurve, label: str, looks: dict[str, Any], end: float | None
) -> None:
    # The last point outside is kept, so that the line runs to the panel's edge.
    inside = found.frames <= (end or math.inf)
    n = min(len(inside), int(inside.sum()) + 1)
    x, mean, std = found.frames[:n], found.mean[:n], found.std[:n]
    axes.fill_between(x, mean - std, mean + std, color="0.5", alpha=0.12, linewidth=0)
    axes.plot(x, mean, label=label, linewidth=1.1, zorder=2, **looks)


def _stretch(values: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Returns values where `keep` or a neighbour of it holds, so that pieces of a line meet."""
    near = keep.copy()
    near[:-1] |= keep[1:]
    if keep.any() and not keep.all():
        return np.where(near, values, np.nan)
    return values if keep.all() else np.full_like(values, np.nan)


def _metric_words(metric: str) -> str:
    return {"eval/return": "Evaluation return", "train/return": "Training return"}.get(
        metric, metric)


def curve_caption(study: Study) -> str:
    """Returns what lines, bands and greys mean."""
    curves = study.curves.values()
    text = f"In bins of {short_frames(study.width)} frames."
    if any(found.seeds > 1 for found in curves):
        text = (f"Coloured: mean over seeds in bins of {short_frames(study.width)} frames; band: "
                f"{_SPREADS[study.spread]}.")
    if any((found.count < found.seeds).any() for found in curves):
        text += " Dotted: some seeds have not begun or have ended."
    if study.published_methods:
        text += " Grey: published; bands are one standard deviation"
        lines = any(study.published.curve(task, method) is None
                    for method in study.published_methods for task in study.tasks)
        text += ", straight lines scores at the frames named." if lines else "."
    return text


def draw_bars(study: Study) -> Figure:
    """Returns bars of final scores in groups by task: ours with a dot a seed, published hatched.

    Control tasks share axes; any others get axes of their own, since their scores have no common
    scale.
    """
    shared = all(suite_of(task) == "dmc" for task in study.tasks)
    groups = min(_GROUPS_A_ROW, len(study.tasks)) if shared else 1
    columns = 1 if shared else min(4, len(study.tasks))
    rows = math.ceil(len(study.tasks) / groups / columns)
    width = bars_width(groups) if columns == 1 else style.WIDTH
    abreast = 3 if width > 6 else 2
    # A single row must be tall enough for the words beside it.
    height = max(1.5 * rows + 0.9, 3.0)
    height += style.legend_height(len(study.methods) + len(study.published_methods), abreast)
    figure, panels = style.new_figure(height, rows, columns, width)
    for number, axes in enumerate(panels):
        tasks = study.tasks[number * groups : (number + 1) * groups]
        axes.set_visible(bool(tasks))
        _bars_row(axes, study, tasks)
        axes.set_xlim(-0.5, groups - 0.5)
    figure.supylabel(f"{_metric_words(study.metric)} {study.at_words()}", fontsize=8)
    style.legend(figure, panels, abreast)
    caption = " Dots: single seeds. White, hatched: published. In brackets: frames of the scores"
    if study.published_methods and study.at is None:
        caption += ", published ones taken where our longest run ends if a curve reaches it"
    style.footnotes(figure, [f"{bar_caption(study)}{caption}.", *study.all_notes()])
    return figure


def _bars_row(axes: Axes, study: Study, tasks: Sequence[str]) -> None:
    total = len(study.methods) + len(study.published_methods)
    width = 0.84 / total
    offset = (np.arange(total) - (total - 1) / 2) * width
    for index, method in enumerate(study.methods):
        looks = style.bar_style(index, is_own=True)
        for i, task in enumerate(tasks):
            x = i + offset[index]
            if (task, method) not in study.scored:
                axes.text(x, 0, "none", rotation=90, ha="center", va="bottom", fontsize=5.5)
                continue
            scores = study.scored[task, method].scores
            axes.bar(x, scores.mean(), width, label=study.score_label(method), **looks)
            whisker = whiskers(scores, study.spread)
            if len(scores) > 1:
                axes.errorbar(x, scores.mean(), whisker, color="black", linewidth=0.8, capsize=1.5)
            axes.plot(np.full(len(scores), x), scores, "o", color="black", markersize=2,
                      markerfacecolor="white", markeredgewidth=0.4, zorder=4)
    for index, method in enumerate(study.published_methods):
        label = study.published_name(method)
        for i, task in enumerate(tasks):
            point = study.published_point(task, method)
            if point is not None:
                axes.bar(i + offset[len(study.methods) + index], point.score, width, label=label,
                         **style.bar_style(index, is_own=False))
    axes.set_xticks(range(len(tasks)), [task_title(task) for task in tasks])
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)


def bars_width(groups: int) -> float:
    """Returns the width in inches of a figure with that many groups of bars in a row."""
    return min(style.WIDTH, 3.6 + 0.9 * (groups - 1))


def bar_caption(study: Study) -> str:
    """Returns what bars and whiskers stand for; ``""`` where there is no score of ours."""
    seeds = [len(scores) for method in study.methods
             for scores in study.own_points(method).values()]
    if max(seeds, default=0) < 2:
        return "One seed each." if seeds else ""
    return f"Bars: mean over seeds; whiskers: {_SPREADS[study.spread]}."


def whiskers(scores: np.ndarray, spread: str) -> np.ndarray:
    """Returns how far the spread of scores [n] reaches below and above their mean, [2, 1]."""
    mean = scores.mean()
    if spread == "std":
        low, high = mean - scores.std(), mean + scores.std()
    elif spread == "ci":
        draws = np.random.default_rng(0).choice(scores, (2000, len(scores))).mean(1)
        low, high = np.percentile(draws, [2.5, 97.5])
    else:
        low, high = scores.min(), scores.max()
    return np.array([[max(mean - low, 0.0)], [max(high - mean, 0.0)]])
