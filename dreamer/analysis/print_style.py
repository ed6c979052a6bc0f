"""The look of figures in print: sizes, fonts, colours for the colour-blind, legends and files."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dreamer.io.files import atomic_write

WIDTH = 7.2  # inches, the text width of a page; the fonts below have their size in print

# Okabe and Ito's palette without black and yellow. In this order, neighbours also differ in
# lightness, for prints in grey.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")

_SETTINGS: dict[Any, Any] = {
    "font.size": 7.5, "legend.fontsize": 7.5, "axes.titlesize": 8, "axes.labelsize": 8,
    "xtick.labelsize": 7, "ytick.labelsize": 7,
    "axes.linewidth": 0.6, "grid.linewidth": 0.5, "lines.linewidth": 1.4, "hatch.linewidth": 0.5,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "0.9", "savefig.dpi": 200,
    "text.parse_math": False,  # a name from a folder may hold dollar signs
    "pdf.fonttype": 42,  # text stays text
}


def new_figure(
    height: float, count: int, columns: int, width: float = WIDTH
) -> tuple[Figure, list[Axes]]:
    """Returns a figure of `height` x `width` inches, and its `count` panels row by row."""
    mpl.rcParams.update(_SETTINGS)
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(math.ceil(count / columns), columns, squeeze=False)
    for axes in panels.flat[count:]:
        axes.set_visible(False)
    return figure, list(panels.flat[:count])


def legend(figure: Figure, panels: Sequence[Axes], columns: int = 4) -> None:
    """Adds one legend above all panels, with each label once, and room for it."""
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        figure.legend(list(handles.values()), list(handles), loc="outside upper center",
                      ncols=min(columns, len(handles)), handlelength=3)
        lines = math.ceil(len(handles) / columns)  # every figure has room for two
        figure.set_figheight(figure.get_figheight() + 0.16 * max(0, lines - 2))


def footnotes(figure: Figure, notes: Sequence[str]) -> Figure:
    """Writes the notes below the figure, and returns it."""
    text = textwrap.fill(" ".join(notes), int(figure.get_figwidth() * 22))
    figure.text(0.01, -0.01, text, va="top", ha="left", fontsize=6.5, color="0.25")
    return figure


def save(figure: Figure, stem: Path, formats: Sequence[str]) -> list[Path]:
    """Writes <stem>.<format> in every format; each file is complete or absent."""
    paths = {kind: stem.parent / f"{stem.name}.{kind}" for kind in formats}
    for kind, path in paths.items():
        with atomic_write(path) as file:
            figure.savefig(file, format=kind, bbox_inches="tight")
    return list(paths.values())
