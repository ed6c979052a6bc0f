"""Draws figures and tables of every run below a folder, beside published results.

    python plots/plot.py --indir runs/ --outdir plots/out/
    python plots/plot.py --indir plots/results --outdir plots/out --tasks dmc_cartpole_balance \
        --methods dreamer_small --published dreamer_tf2_release --figures curves
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

if __name__ == "__main__":  # run as a script from anywhere: make the checkout importable
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from plots import check_packages

    check_packages()

from matplotlib.figure import Figure
from rich.console import Console

from dreamer.config.command_line import CommandLine, Option, run_main
from dreamer.io.files import make_folder
from plots import ablations, figures, tables
from plots.aggregates import Summary, summarise
from plots.labels import choose
from plots.options import CHOICE, READING, Options, load_published, make_study
from plots.study import Study
from plots.style import MOST_METHODS, save

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
_TASKS_A_PAGE = 30

Save = Callable[[Figure, str], None]
"""Saves a figure under a name."""


def main(argv: Sequence[str]) -> int:
    """Reads the command line, writes figures and tables, and prints their paths."""
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    for path in plot(LINE.parse(argv).options, console):
        print(path)
    return 0


def plot(options: Options, console: Console) -> list[Path]:
    """Writes the chosen figures and tables; returns their paths.

    Figures show at most `MOST_METHODS` methods and say so. Tables hold all of them.
    """
    published = load_published(options)
    readings = choose(options["ablation"], published.figures, "ablation figure")
    study = make_study(options, published, console)
    outdir, asked = Path(options["outdir"]), set(options["figures"] or FIGURES)
    make_folder(outdir, "choose another --outdir")
    written: list[Path] = []

    def save_figure(figure: Figure, name: str) -> None:
        written.extend(save(figure, outdir / name, options["formats"] or ("png", "pdf")))

    for page, suffix in _pages(study.first_methods(MOST_METHODS)):
        if "curves" in asked:
            save_figure(figures.draw_curves(page, options["end"]), f"curves{suffix}")
        if "bars" in asked:
            save_figure(figures.draw_bars(page), f"final_scores{suffix}")
    if "ablation" in asked:
        _draw_ablations(study, readings, save_figure)
    if "tables" in asked:
        written += tables.write_scores(study, outdir)
    if {"aggregates", "profile", "improvement", "tables"} & asked:
        summary = summarise(study, options["normalize"], resamples=options["resamples"])
        written += _over_tasks(summary, asked, outdir, save_figure)
    return written


def _over_tasks(summary: Summary, asked: set[str], outdir: Path, save_figure: Save) -> list[Path]:
    """Draws the figures over all tasks; returns the paths of their tables."""
    if not summary.own:
        return []
    shown = summary.first_methods(MOST_METHODS)
    if "aggregates" in asked:
        save_figure(figures.draw_aggregates(shown), "aggregates")
    if "profile" in asked:
        save_figure(figures.draw_profiles(shown), "performance_profile")
    pairs = summary.improvements() if {"improvement", "tables"} & asked else []
    if pairs and "improvement" in asked:
        save_figure(figures.draw_improvements(summary, pairs), "improvement")
    return tables.write_aggregates(summary, pairs, outdir) if "tables" in asked else []


def _pages(study: Study) -> list[tuple[Study, str]]:
    """Returns the study in parts that fit on a page, each with the suffix of its files."""
    pages = study.pages(_TASKS_A_PAGE)
    return [(page, f"_{number}" if len(pages) > 1 else "")
            for number, page in enumerate(pages, start=1)]


def _draw_ablations(study: Study, readings: list[str], save_figure: Save) -> None:
    """Draws the parameters that the runs sweep, their variants, and the paper's figures asked for.
    """
    found, asked = ablations.sweeps(study.methods), []
    for name in readings:
        parameters = [row.parameter for row in study.published.ablation(name) if row.parameter]
        found |= {parameter: {} for parameter in parameters if parameter not in found}
        asked += [] if parameters else [name]
    swept = set[str]()
    for parameter, sweep in found.items():
        methods = {name for values in sweep.values() for name in values.values()}
        swept |= methods
        shown = study.only(methods)
        for page, suffix in _pages(shown) if methods else [(shown, "")]:
            figure = ablations.draw_sweep(page, parameter, sweep, study.published.rows)
            save_figure(figure, f"ablation_{parameter}{suffix}")
    rest = [method for method in study.methods if method not in swept]
    for name in dict.fromkeys([*ablations.VARIANTS, *asked]):
        chosen = ablations.variants(rest, ablations.VARIANTS.get(name, ()))
        if chosen or name in asked:
            for page, suffix in _pages(study.only(chosen or rest).first_methods(MOST_METHODS)):
                figure = ablations.draw_variants(page, study.published.ablation(name))
                save_figure(figure, f"ablation_{name}{suffix}")


if __name__ == "__main__":
    run_main(main)
