"""Learning curves, final scores, ablations, and figures over all tasks."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dreamer.config.schema import DREAMER, load_schema
from plots import style
from plots.aggregates import Estimate, Summary, profile
from plots.labels import published_label, short_frames, suite_of, task_title
from plots.published import Row
from plots.study import Study, whiskers

MOST_PAIRS = 24
_METRICS = {"eval/return": "Evaluation return", "train/return": "Training return"}
_SPREADS = {"std": "one standard deviation of the seeds", "range": "least and greatest seed",
            "ci": "95% bootstrap interval of the mean"}
_STATISTICS = {"median": "Median", "iqm": "Interquartile mean", "mean": "Mean"}
_SWEPT = re.compile(r"(?P<head>.+)=(?P<value>[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?)")

VARIANTS = {
    "fig7": ("no_value", "planet"),
    "fig8": ("contrastive", "reward_only", "reconstruction"),
    "dynamics": ("stochastic_only", "deterministic_only"),
}
"""By figure, the presets and agents it compares. fig7 and fig8 are the Dreamer paper's."""

Bars = Mapping[str, Mapping[str, float]]  # by label, scores by task
Sweep = dict[str, dict[float, str]]
"""By base method, the parameter's values, each with the full name of the method."""


# Learning curves.


def draw_curves(study: Study, end: float | None = None) -> Figure:
    """Returns learning curves, one panel a task.

    Our curves are coloured: the mean over seeds, with the spread as a band, dotted where a seed
    is missing. Published curves are grey and dashed, and published scores are horizontal lines.
    `end` is the last frame shown; None ends where the longest of our runs on these tasks ends.
    """
    tasks, columns = study.tasks, min(5, len(study.tasks)) if len(study.tasks) != 4 else 2
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
    return style.footnotes(figure, [curve_caption(study), *study.notes])


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
        if (own := study.curves.get((task, method))) is None:
            continue
        look, complete = style.curve_style(index, len(own.x)), own.present == own.seeds
        seeds = max(found.seeds for (_, name), found in study.curves.items() if name == method)
        label = f"{method} ({seeds} seed{'s' if seeds != 1 else ''})"
        axes.fill_between(own.x, own.low, own.high, color=look["color"], alpha=0.2, linewidth=0)
        axes.plot(own.x, _masked(own.mean, complete), label=label, zorder=3, **look)
        if not complete.all():
            axes.plot(own.x, _masked(own.mean, ~complete), zorder=3,
                      **{**look, "linestyle": ":", "linewidth": 1.2})
        if own.seeds < (expected := study.expected(method)):
            short.append(f"{method}: {own.seeds} of {expected} seeds")
    for index, method in enumerate(study.published_methods):
        look, label = style.published_style(index), published_label(method)
        if (curve := study.published.curves.get((task, method))) is not None:
            n = int((curve.frames <= (end or math.inf)).sum()) + 1  # to the panel's edge
            x, mean, std, _ = (values[:n] for values in curve)
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
    figure = _bar_figure(study, study.tasks, {
        study.published_name(name):
            {task: scores[0] for task, scores in study.published_points(name).items()}
        for name in study.published_methods})
    figure.supylabel(f"{_METRICS.get(study.metric, study.metric)} {study.at_words()}", fontsize=8)
    caption = "Dots: single seeds. White, hatched: published. In brackets: frames of the scores."
    return style.footnotes(figure, [_bar_caption(study), caption, *study.notes])


def _bar_figure(
    study: Study, tasks: Sequence[str], published: Bars, groups_a_row: int = 5
) -> Figure:
    """Returns bars in groups by task: our methods, then the published ones.

    Control tasks share axes, at most `groups_a_row` of them. If there are other tasks, each task
    has its own axes, because their scores have no common scale.
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


def _bars_panel(axes: Axes, study: Study, tasks: Sequence[str], published: Bars) -> None:
    total = len(study.methods) + len(published)
    width = 0.84 / total
    offset = (np.arange(total) - (total - 1) / 2) * width
    for index, method in enumerate(study.methods):
        for i, task in enumerate(tasks):
            if (task, method) not in study.scored:
                continue
            x, scores = i + offset[index], study.scored[task, method].scores
            axes.bar(x, scores.mean(), width, label=study.label(method),
                     **style.bar_style(index, is_own=True))
            if len(scores) > 1:
                axes.errorbar(x, scores.mean(), whiskers(scores, study.spread), color="black",
                              linewidth=0.8, capsize=1.5)
            axes.plot(np.full(len(scores), x), scores, "o", color="black", markersize=2,
                      markerfacecolor="white", markeredgewidth=0.4, zorder=4)
    for index, (label, by_task) in enumerate(published.items()):
        for i, task in enumerate(tasks):
            if task in by_task:
                axes.bar(i + offset[len(study.methods) + index], by_task[task], width, label=label,
                         **style.bar_style(index, is_own=False))


def _bar_caption(study: Study) -> str:
    """Returns the meaning of scores and whiskers."""
    return f"Scores: mean over seeds; whiskers: {_SPREADS[study.spread]}."


# Ablations: scores over the values of a parameter, and variants side by side.


def sweeps(methods: Sequence[str]) -> dict[str, Sweep]:
    """Returns by parameter the methods named ``<base>_<parameter>=<number>``.

    ``dreamer_behavior.horizon=5`` is the value 5 of ``horizon`` for ``dreamer``. A parameter with
    a single value is no sweep.
    """
    found: dict[str, Sweep] = {}
    for match in filter(None, map(_SWEPT.fullmatch, methods)):
        base, parameter = _split(match["head"])
        if base:
            values = found.setdefault(parameter.rpartition(".")[2], {}).setdefault(base, {})
            values[float(match["value"])] = match[0]
    return {parameter: sweep for parameter, sweep in found.items()
            if len({value for values in sweep.values() for value in values}) > 1}


def _split(head: str) -> tuple[str, str]:
    """Splits ``dreamer_small_kl_scale`` into base and parameter; both may hold underscores.

    The parameter is the longest end that is a config key or a key's last word. If no end is, the
    parameter follows the first underscore that is not part of an earlier ``key=value``.
    """
    known = {name for key in load_schema() for name in (key, key.rpartition(".")[2])}
    cuts = [(head[:i], head[i + 1 :]) for i in range(max(1, head.rfind("=") + 1), len(head))
            if head[i] == "_"]
    named = [cut for cut in cuts if cut[1] in known]
    return next(iter(named + [cut for cut in cuts if re.match("[A-Za-z]", cut[1])]), ("", ""))


def variants(methods: Sequence[str], words: Sequence[str]) -> list[str]:
    """Returns the methods whose name holds one of the words, and the methods they vary.

    ``dreamer_no_value_small`` is a variant of ``dreamer_small``. ``planet_small`` is an agent of
    its own, and is compared with ``dreamer_small``.
    """
    chosen: set[str] = set()
    for method in methods:
        folders, slash, name = method.rpartition("/")
        for word in words:
            base, count = re.subn(rf"(?:^|_){word}(?=_|$)", "", name, count=1)
            if count:
                agent = DREAMER if name.startswith(word) else ""
                chosen |= {method, folders + slash + agent + base}
    return [method for method in methods if method in chosen]


def draw_ablations(study: Study, readings: Sequence[str]) -> Iterator[tuple[str, Figure]]:
    """Yields names and figures of sweeps, of variants, and of the paper's figures in `readings`."""
    found, asked = sweeps(study.methods), []
    for name in readings:
        parameters = [row.parameter for row in study.published.ablation(name) if row.parameter]
        found |= {parameter: {} for parameter in parameters if parameter not in found}
        asked += [] if parameters else [name]
    rest = study.methods
    for parameter, sweep in found.items():
        methods = {name for values in sweep.values() for name in values.values()}
        rest = [method for method in rest if method not in methods]
        shown = study.only(methods)
        for page, suffix in shown.pages() if methods else [(shown, "")]:
            yield f"{parameter}{suffix}", draw_sweep(page, parameter, sweep)
    for name in dict.fromkeys([*VARIANTS, *asked]):
        chosen = variants(rest, VARIANTS.get(name, ()))
        if chosen or name in asked:
            for page, suffix in study.only(chosen or rest).first_methods().pages():
                yield f"{name}{suffix}", draw_variants(page, study.published.ablation(name))


def draw_sweep(study: Study, parameter: str, sweep: Sweep) -> Figure:
    """Returns scores over the parameter's values, one panel a task; those of papers are grey."""
    tasks, readings = _shown(
        study, [row for row in study.published.rows if row.parameter == parameter])
    columns = min(4, len(tasks))
    height = 1.7 * math.ceil(len(tasks) / columns) + 0.8
    width = max(3.4, 0.6 + columns * (style.WIDTH - 0.6) / 4)
    figure, panels = style.new_figure(height, len(tasks), columns, width)
    for task, axes in zip(tasks, panels, strict=True):
        axes.set_title(task_title(task))
        _sweep_panel(axes, study, task, sweep, [row for row in readings if row.task == task])
    figure.supxlabel(parameter, fontsize=8)
    style.legend(figure, panels, 3 if columns > 2 else 1)
    return _explained(figure, study, readings)


def _sweep_panel(axes: Axes, study: Study, task: str, sweep: Sweep, readings: list[Row]) -> None:
    for index, name in enumerate(dict.fromkeys(row.method for row in readings)):
        points = sorted((row.value, row.score) for row in readings
                        if row.method == name and row.value is not None)
        axes.plot(*zip(*points, strict=True), label=f"{published_label(name)} (figure)",
                  linewidth=1.0, marker=".", markersize=3, **style.published_style(index))
    for index, (base, values) in enumerate(sorted(sweep.items())):
        found = [(value, study.scored[task, method].scores)
                 for value, method in sorted(values.items()) if (task, method) in study.scored]
        if found:
            axes.errorbar([value for value, _ in found], [scores.mean() for _, scores in found],
                          np.hstack([whiskers(scores, study.spread) for _, scores in found]),
                          label=f"{base} ({study.frames_of(values.values())})",
                          capsize=1.5, elinewidth=0.8, markersize=3, **style.own_style(index))
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))


def draw_variants(study: Study, readings: Sequence[Row]) -> Figure:
    """Returns bars of our methods beside the readings of one of the paper's figures."""
    tasks, readings = _shown(study, readings)
    published = {f"{published_label(name)} (figure)":
                 {row.task: row.score for row in readings if row.method == name}
                 for name in dict.fromkeys(row.method for row in readings)}
    return _explained(_bar_figure(study, tasks, published, groups_a_row=4), study, readings)


def _shown(study: Study, readings: Sequence[Row]) -> tuple[list[str], list[Row]]:
    """Returns the tasks with a score of ours, or else those of the readings; and their readings."""
    tasks = [task for task in study.tasks
             if any((task, method) in study.scored for method in study.methods)]
    tasks = tasks or sorted({row.task for row in readings})
    return tasks, [row for row in readings if row.task in tasks]


def _explained(figure: Figure, study: Study, readings: Sequence[Row]) -> Figure:
    source = [f"Grey: {readings[0].source}; approximate."] if readings else []
    figure.supylabel(f"Score {study.at_words()}", fontsize=8)
    return style.footnotes(figure, [_bar_caption(study), *source, *study.notes])


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
    return style.footnotes(figure, [
        "Ours: bar at the estimate, band 95% stratified bootstrap interval over runs (none with "
        "one run a task). Diamonds: published, one value a task, so their median and "
        "interquartile mean are over tasks only.", *summary.notes])


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
    return style.footnotes(figure, [
        "Every task weighs the same. Band: 95% stratified bootstrap interval.", *summary.notes])


def draw_improvements(summary: Summary) -> Figure:
    """Returns the probability that a run of X beats one of Y, for the first `MOST_PAIRS` pairs."""
    pairs, more = summary.improvements[:MOST_PAIRS], len(summary.improvements) - MOST_PAIRS
    cut = [f"{more} more pairs are not drawn; --figures tables writes all."] if more > 0 else []
    figure, (axes,) = style.new_figure(0.24 * len(pairs) + 0.75, 1, 1)
    for row, (*_, value) in enumerate(pairs):
        _estimate(axes, row, value, style.own_style(0)["color"])
    axes.axvline(0.5, color="0.3", linewidth=0.8, linestyle="--")
    axes.set_xlim(0, 1)
    _rows_axis(axes, [f"{x}  over  {y} [{tasks}]" for x, y, tasks, _ in pairs])
    axes.set_xlabel("P(a run of the first scores higher than one of the second)")
    return style.footnotes(figure, [
        "In brackets: tasks in common. Band: 95% stratified bootstrap interval. A published method "
        "counts as one run a task.", *cut, *summary.notes])


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
