"""Ablation figures: scores over the values of a parameter, and variants side by side."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dreamer.config.schema import DREAMER, load_schema
from plots import style
from plots.figures import bar_caption, bar_figure
from plots.labels import published_label, task_title
from plots.published import Row
from plots.study import Study, whiskers

_SWEPT = re.compile(r"(?P<head>.+)=(?P<value>[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?)")

VARIANTS = {
    "fig7": ("no_value", "planet"),
    "fig8": ("contrastive", "reward_only", "reconstruction"),
    "dynamics": ("stochastic_only", "deterministic_only"),
}
"""By figure, the presets and agents it compares. fig7 and fig8 are the Dreamer paper's."""

Sweep = dict[str, dict[float, str]]
"""By base method, the parameter's values, each with the full name of the method."""


def sweeps(methods: Sequence[str]) -> dict[str, Sweep]:
    """Returns by parameter the methods named ``<base>_<parameter>=<number>``.

    ``dreamer_behavior.horizon=5`` is the value 5 of ``horizon`` for ``dreamer``. A parameter with
    a single value is no sweep.
    """
    found: dict[str, Sweep] = {}
    for method in methods:
        match = _SWEPT.fullmatch(method)
        base, parameter = _split(match["head"]) if match else ("", "")
        if match and base:
            values = found.setdefault(parameter.rpartition(".")[2], {}).setdefault(base, {})
            values[float(match["value"])] = method
    return {parameter: sweep for parameter, sweep in found.items()
            if len({value for values in sweep.values() for value in values}) > 1}


def _split(head: str) -> tuple[str, str]:
    """Splits ``dreamer_small_kl_scale`` into base and parameter; both may hold underscores.

    The parameter is the longest end that is a config key or a key's last word. If no end is, the
    parameter follows the first underscore that is not part of an earlier ``key=value``.
    """
    start = head.rfind("=") + 1
    cuts = [i for i in range(start, len(head)) if head[i] == "_" and i > 0]
    keys = load_schema()
    known = set(keys) | {key.rpartition(".")[2] for key in keys}
    words = [cut for cut in cuts if re.match(r"[A-Za-z]", head[cut + 1 :])]
    for cut in [cut for cut in cuts if head[cut + 1 :] in known] + words:
        return head[:cut], head[cut + 1 :]
    return "", ""


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


def draw_sweep(study: Study, parameter: str, sweep: Sweep, readings: Sequence[Row]) -> Figure:
    """Returns scores over the parameter's values, one panel a task.

    `readings` are scores read off the paper's figures, drawn in grey.
    """
    readings = [row for row in readings if row.parameter == parameter]
    swept = {method for values in sweep.values() for method in values.values()}
    tasks = [task for task in study.tasks
             if any((task, method) in study.scored for method in swept)]
    tasks = tasks or sorted({row.task for row in readings})  # without runs, only the paper's
    readings = [row for row in readings if row.task in tasks]
    columns = min(4, len(tasks))
    height = 1.7 * math.ceil(len(tasks) / columns) + 0.8
    width = max(3.4, 0.6 + columns * (style.WIDTH - 0.6) / 4)
    figure, panels = style.new_figure(height, len(tasks), columns, width)
    for task, axes in zip(tasks, panels, strict=True):
        axes.set_title(task_title(task))
        _sweep_panel(axes, study, task, sweep, [row for row in readings if row.task == task])
    figure.supxlabel(parameter, fontsize=8)
    figure.supylabel(f"Score {study.at_words()}", fontsize=8)
    style.legend(figure, panels, 3 if columns > 2 else 1)
    style.footnotes(figure, [bar_caption(study), *_source_notes(readings), *study.notes])
    return figure


def _sweep_panel(
    axes: Axes, study: Study, task: str, sweep: Sweep, readings: Sequence[Row]
) -> None:
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
    """Returns bars of our methods beside the readings of one of the paper's figures.

    It shows the tasks on which one of the methods has a score, or else the figure's tasks.
    """
    tasks = [task for task in study.tasks
             if any((task, method) in study.scored for method in study.methods)]
    tasks = tasks or sorted({row.task for row in readings})
    readings = [row for row in readings if row.task in tasks]
    published = [(f"{published_label(name)} (figure)",
                  {row.task: row.score for row in readings if row.method == name})
                 for name in dict.fromkeys(row.method for row in readings)]
    figure = bar_figure(study, tasks, published, groups_a_row=4)
    figure.supylabel(f"Score {study.at_words()}", fontsize=8)
    style.footnotes(figure, [bar_caption(study), *_source_notes(readings), *study.notes])
    return figure


def _source_notes(readings: Sequence[Row]) -> list[str]:
    return [f"Grey: {readings[0].source}; approximate."] if readings else []
