"""The look of curves and bars; `dreamer.analysis.print_style` has what all figures share."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dreamer.analysis.print_style import COLOURS
from dreamer.analysis.print_style import WIDTH as WIDTH
from dreamer.analysis.print_style import footnotes as footnotes
from dreamer.analysis.print_style import legend as legend
from dreamer.analysis.print_style import new_figure as new_figure
from dreamer.analysis.print_style import save as save
from plots.labels import short_frames

_GREYS = ("0.15", "0.45", "0.6", "0.3", "0.5", "0.2")
_DASHES = ((5, 2), (1.5, 1.5), (5, 2, 1.5, 2), (8, 2), (3, 1.5, 1, 1.5, 1, 1.5), (2, 3))
_HATCHES = ("////", "....", "xxxx", "----", "\\\\\\\\", "++++")


def own_style(index: int) -> dict[str, Any]:
    """Returns colour, marker and line of our method number `index`; later lines are dashed."""
    markers = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p", "h")
    return {"color": COLOURS[index % len(COLOURS)], "marker": markers[index % len(markers)],
            "linestyle": "-" if index < len(COLOURS) else (0, (4, 1.2))}


def curve_style(index: int, points: int) -> dict[str, Any]:
    """Returns `own_style` for a curve of `points` points.

    It has markers if it is short, and a few hollow ones if it is the second of its colour.
    """
    look = own_style(index)
    if index >= len(COLOURS):
        return {**look, "markersize": 4, "markerfacecolor": "white", "markeredgewidth": 0.9,
                "markevery": max(1, points // 5)}
    return {**look, "markersize": 3, "marker": look["marker"] if points <= 3 else None}


def published_style(index: int) -> dict[str, Any]:
    """Returns the grey and the dashes of published method number `index`."""
    n = index % len(_GREYS)
    return {"color": _GREYS[n], "linestyle": (0, _DASHES[n])}


def bar_style(index: int, is_own: bool) -> dict[str, Any]:
    """Returns the look of a bar: ours coloured (later ones hatched, too), published ones white."""
    n = index % len(COLOURS)
    if is_own:
        return {"color": COLOURS[n], "edgecolor": "black", "linewidth": 0.4,
                "hatch": "xxxxx" if index > n else None}
    return {"color": "white", "edgecolor": _GREYS[n], "hatch": _HATCHES[n], "linewidth": 0.4}


def curve_axes(axes: Axes) -> None:
    """Labels the x axis in k and M frames, and starts the y axis at 0 or at the lowest line."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_frames(value)))
    lines = [line.get_ydata() for line in axes.get_lines()]
    low = min((float(np.nanmin(y)) for y in lines if np.isfinite(y).any()), default=0.0)
    high = axes.get_ylim()[1]
    axes.set_ylim(min(low, 0.0) - 0.03 * (high - min(low, 0.0)), high)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
