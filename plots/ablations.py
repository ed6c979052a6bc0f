"""Ablation figures: scores over a swept parameter, and variants side by side."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dreamer.config.schema import DREAMER, load_schema
from plots import style
from plots.curves import listed
from plots.figures import bar_caption, bars_width, whiskers
from plots.names import published_label, suite_of, task_title
from plots.numbers import short_frames
from plots.published import Row
from plots.study import Study

_GRID = re.compile(r"(?P<head>.+)=(?P<value>[-+.\deE]+)")

VARIANTS = {
    "fig7": ("no_value", "planet"),
    "fig8": ("contrastive", "reward_only", "reconstruction"),
    "dynamics": ("stochastic_only", "deterministic_only"),
}
"""By figure (fig7 and fig8 are the Dreamer paper's) the presets, and agents, that it compares."""

Sweep = dict[str, dict[float, str]]
"""By base method: the swept value -> the method's full name."""


def sweeps(methods: Sequence[str]) -> dict[str, Sweep]:
    """Returns by parameter the methods named ``<base>_<parameter>=<number>``.

    ``dreamer_behavior.horizon=5`` is the value 5 of ``horizon`` for ``dreamer``. Parameters with a
    single value are no sweep.
    """
    found: dict[str, Sweep] = {}
    for method in methods:
        match = _GRID.fullmatch(method)
        base, parameter = _split(match["head"]) if match else ("", "")
        if match is None or not base:
            continue
        try:
            value = float(match["value"])
        except ValueError:
            continue
        found.setdefault(parameter.rpartition(".")[2], {}).setdefault(base, {})[value] = method
    return {parameter: sweep for parameter, sweep in found.items()
            if len({value for values in sweep.values() for value in values}) > 1}


def _split(head: str) -> tuple[str, str]:
    """Cuts ``dreamer_small_kl_scale`` into base and parameter, both of which may hold underscores.

    The parameter is the longest end that is a key of the config, or the last word of one; where
    none is, what follows the first underscore that is in no earlier ``key=value``.
    """
    start = head.rfind("=") + 1
    cuts = [i for i in range(start, len(head)) if head[i] == "_" and i > 0]
    keys = load_schema()
    known = set(keys) | {key.rpartition(".")[2] for key in keys}
    for cut in cuts:
        if head[cut + 1 :] in known:
            return head[:cut], head[cut + 1 :]
    words = [cut for cut in cuts if re.match(r"[A-Za-z]", head[cut + 1 :])]
    return (head[: words[0]], head[words[0] + 1 :]) if words else ("", "")


def variants(methods: Sequence[str], words: Sequence[str]) -> list[str]:
    """Returns the methods whose name holds one of the words, and those they are variants of.

    ``dreamer_no_value_small`` is a variant of ``dreamer_small``, and ``planet_small``, which is an
    agent of its own, is compared with it.
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


def draw_sweep(study: Study, parameter: str, sweep: Sweep, readings: Sequence[Row]) -> Figure:
    """Returns scores over the parameter's values, one panel a task, published readings in grey."""
    readings = [row for row in readings if row.parameter == parameter]
    swept = {method for values in sweep.values() for method in values.values()}
    tasks = [task for task in study.tasks
             if any((task, method) in study.scored for method in swept)]
    if not tasks:  # nothing of ours: the published figure alone
        tasks = sorted({row.task for row in readings})
    readings = [row for row in readings if row.task in tasks]
    columns = min(4, len(tasks))
    rows = math.ceil(len(tasks) / columns)
    width = max(3.4, 0.6 + columns * (style.WIDTH - 0.6) / 4)
    figure, panels = style.new_figure(1.7 * rows + 0.8, rows, columns, width)
    for task, axes in zip(tasks, panels, strict=False):
        axes.set_title(task_title(task))
        _published_lines(axes, [row for row in readings if row.task == task])
        for index, (base, values) in enumerate(sorted(sweep.items())):
            _sweep_line(axes, study, task, base, values, index)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    for axes in panels[len(tasks) :]:
        axes.set_visible(False)
    figure.supxlabel(parameter, fontsize=8)
    figure.supylabel(f"Score {study.at_words()}", fontsize=8)
    style.legend(figure, panels, 3 if columns > 2 else 1)
    style.footnotes(figure, [bar_caption(study).replace("Bars", "Points"),
                             *_reading_notes(readings), *study.notes])
    return figure


def draw_variants(study: Study, readings: Sequence[Row]) -> Figure:
    """Returns bars of our methods beside the readings of one of the paper's figures, by task.

    On the tasks on which one of the methods has a score, in the figure or not; where none has, on
    the figure's. Control tasks share axes, others have their own.
    """
    figure_tasks = sorted({row.task for row in readings})
    tasks = [task for task in study.tasks
             if any((task, method) in study.scored for method in study.methods)] or figure_tasks
    readings = [row for row in readings if row.task in tasks]
    names = list(dict.fromkeys(row.method for row in readings))
    shared = all(suite_of(task) == "dmc" for task in tasks)
    groups, columns = (min(4, len(tasks)), 1) if shared else (1, min(4, len(tasks)))
    rows = math.ceil(len(tasks) / groups / columns)
    width = bars_width(groups + 1) if shared else style.WIDTH
    entries, abreast = len(names) + len(study.methods), 3 if width > 6 else 2
    height = max(1.5 * rows + 0.8, 3.0) + style.legend_height(entries, abreast)
    figure, panels = style.new_figure(height, rows, columns, width)
    bar = 0.84 / entries
    for number, axes in enumerate(panels):
        part = tasks[number * groups : (number + 1) * groups]
        axes.set_visible(bool(part))
        for i, task in enumerate(part):
            _own_bars(axes, study, task, i - 0.42 + bar / 2, bar)
            left = i - 0.42 + bar / 2 + len(study.methods) * bar
            _reading_bars(axes, {row.method: row.score for row in readings if row.task == task},
                          names, left, bar)
        axes.set_xlim(-0.5, groups - 0.5)
        axes.set_xticks(range(len(part)), [task_title(task) for task in part])
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="x", visible=False)
    figure.supylabel(f"Score {study.at_words()}", fontsize=8)
    style.legend(figure, panels, abreast)
    style.footnotes(figure, [bar_caption(study), *_reading_notes(readings),
                             *_task_notes(tasks, figure_tasks), *study.notes])
    return figure


def _task_notes(tasks: Sequence[str], figure_tasks: Sequence[str]) -> list[str]:
    """Says which of the published figure's tasks are shown, and which tasks it has not."""
    there = [task for task in tasks if task in figure_tasks]
    absent = [task_title(task) for task in tasks if task not in figure_tasks]
    notes = []
    if len(there) < len(figure_tasks):
        notes.append(f"Shown: {len(there)} of the figure's {len(figure_tasks)} tasks.")
    if absent and figure_tasks:
        notes.append(f"Not in the figure: {listed(absent)}.")
    return notes


def _reading_bars(
    axes: Axes, scores: dict[str, float], names: Sequence[str], left: float, bar: float
) -> None:
    for index, name in enumerate(names):
        if name in scores:
            axes.bar(left + index * bar, scores[name], bar,
                     label=f"{published_label(name)} (figure)",
                     **style.bar_style(index, is_own=False))


def _own_bars(axes: Axes, study: Study, task: str, left: float, bar: float) -> None:
    for index, method in enumerate(study.methods):
        x = left + index * bar
        found = study.scored.get((task, method))
        if found is None:
            axes.text(x, 0, "none", rotation=90, ha="center", va="bottom", fontsize=5.5)
            continue
        axes.bar(x, found.scores.mean(), bar, label=study.score_label(method),
                 **style.bar_style(index, is_own=True))
        if len(found.scores) > 1:
            axes.errorbar(x, found.scores.mean(), whiskers(found.scores, study.spread),
                          color="black", linewidth=0.8, capsize=1.5)


def _published_lines(axes: Axes, readings: Sequence[Row]) -> None:
    for index, name in enumerate(dict.fromkeys(row.method for row in readings)):
        points = sorted((row.value, row.score) for row in readings
                        if row.method == name and row.value is not None)
        x, y = zip(*points, strict=True)
        axes.plot(x, y, label=f"{published_label(name)} (figure)", linewidth=1.0, marker=".",
                  markersize=3, **style.published_style(index))


def _sweep_line(
    axes: Axes, study: Study, task: str, base: str, values: dict[float, str], index: int
) -> None:
    there = [(value, study.scored[task, method].scores)
             for value, method in sorted(values.items()) if (task, method) in study.scored]
    if not there:
        return
    x = [value for value, _ in there]
    y = np.array([scores.mean() for _, scores in there])
    spread = np.hstack([whiskers(scores, study.spread) for _, scores in there])
    label = f"{base} ({study.frames_of(values.values())})"
    axes.errorbar(x, y, spread, label=label, capsize=1.5, elinewidth=0.8, markersize=3,
                  **style.own_style(index))


def _reading_notes(readings: Sequence[Row]) -> list[str]:
    if not readings:
        return []
    frames = sorted({row.frames for row in readings if row.frames is not None})
    at = f" at {', '.join(map(short_frames, frames))} frames" if frames else ""
    return [f"Grey: {readings[0].source}{at}; approximate."]
