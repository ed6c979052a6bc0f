"""Draws figures and tables of every run below a folder, beside published results.

    python plots/plot.py --indir runs/ --outdir plots/out/
    python plots/plot.py --indir plots/results --outdir plots/out --tasks dmc_cartpole_balance \
        --methods dreamer_small --published dreamer_tf2_release --figures curves
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script from anywhere: make the checkout importable
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from plots import check_packages

    check_packages()

from matplotlib.figure import Figure
from rich.console import Console

from dreamer.config.command_line import CommandLine, Option, run_main
from dreamer.io.files import make_folder
from plots import figures, style, tables
from plots.aggregates import Summary, summarise
from plots.labels import choose
from plots.published import Published
from plots.study import CHOICE, READING, make_study

FIGURES = ("curves", "bars", "aggregates", "profile", "improvement", "ablation", "tables")
LINE = CommandLine(
    "python plots/plot.py",
    "Draws learning curves, final scores and aggregates of all runs below --indir beside published "
    "results, and writes their tables.",
    (
        Option("indir", "", "Folders that hold runs, in any depth.", many=True, required=True),
        Option("outdir", "", "Where figures and tables go.", required=True),
        *CHOICE,
        Option("figures", "", "Which figures; default: all.", many=True, choices=FIGURES),
        Option("ablation", "", "Figures of the Dreamer paper to redraw even if no run is of their "
               "variants: fig4, fig7, fig8.", many=True),
        *READING,
        Option("end", 0, "Last frame on the curves' axis; 0: where the longest run ends.", min=0),
        Option("normalize", "auto", "Scale of aggregates: auto, none, or a published method."),
        Option("formats", "", "Formats of the figures; default: png pdf.", many=True,
               choices=("png", "pdf", "svg")),
    ),
    takes_config=False,
)  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Reads the command line, writes figures and tables, and prints their paths."""
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    for path in plot(LINE.parse(argv).options, console):
        print(path)
    return 0


def plot(options: dict[str, Any], console: Console) -> list[Path]:
    """Writes the chosen figures and tables; returns their paths.

    Figures show at most `study.MOST_METHODS` methods and say so. Tables hold all of them.
    """
    published = Published(options["published-dir"])
    readings = choose(options["ablation"], published.figures, "ablation figure")
    study = make_study(options, published, console)
    outdir, asked = Path(options["outdir"]), set(options["figures"] or FIGURES)
    make_folder(outdir, "choose another --outdir")
    written: list[Path] = []

    def save(name: str, figure: Figure) -> None:
        written.extend(style.save(figure, outdir / name, options["formats"] or ("png", "pdf")))

    for page, suffix in study.first_methods().pages():
        if "curves" in asked:
            save(f"curves{suffix}", figures.draw_curves(page, options["end"]))
        if "bars" in asked:
            save(f"final_scores{suffix}", figures.draw_bars(page))
    if "ablation" in asked:
        for name, figure in figures.draw_ablations(study, readings):
            save(f"ablation_{name}", figure)
    if "tables" in asked:
        written += tables.write_scores(study, outdir)
    if {"aggregates", "profile", "improvement", "tables"} & asked:
        summary = summarise(study, options["normalize"], resamples=options["resamples"])
        for name, figure in _over_tasks(summary, asked) if summary.own else ():
            save(name, figure)
        if "tables" in asked and summary.own:
            written += tables.write_aggregates(summary, outdir)
    return written


def _over_tasks(summary: Summary, asked: set[str]) -> Iterator[tuple[str, Figure]]:
    if "aggregates" in asked:
        yield "aggregates", figures.draw_aggregates(summary.first_methods())
    if "profile" in asked:
        yield "performance_profile", figures.draw_profiles(summary.first_methods())
    if "improvement" in asked and summary.improvements:
        yield "improvement", figures.draw_improvements(summary)


if __name__ == "__main__":
    run_main(main)
