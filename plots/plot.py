"""Draws figures and tables of every run below a folder, beside published results.

    python plots/plot.py --indir runs/ --outdir plots/out/
    python plots/plot.py --indir plots/results --outdir plots/out --tasks dmc_cartpole_balance \
        --methods dreamer_small --published dreamer_tf2_release --figures curves
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":  # run as a script from anywhere: make the checkout importable
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from matplotlib.figure import Figure
from rich.console import Console

from dreamer.errors import UserError
from plots import ablations, figures, options, tables
from plots.aggregates import summarise
from plots.labels import choose
from plots.published import Published
from plots.study import Study
from plots.style import MOST_METHODS, save

FIGURES = ("curves", "bars", "aggregates", "profile", "improvement", "ablation", "tables")
_TASKS_A_PAGE = 30

Save = Callable[[Figure, str], None]
"""Saves a figure under a name."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit status: 0, or 2 after a user's mistake."""
    chosen = parse(arguments)
    return options.run_program("plot.py", lambda console: plot(chosen, console),
                               "figures already written are complete.")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Returns the options; a usage error ends with one line and status 2."""
    parser = options.OneLineParser(
        prog="plots/plot.py",
        description="Draws learning curves, final scores and aggregates of all runs below "
                    "--indir beside published results, and writes their tables.")
    add = parser.add_argument
    add("--indir", type=Path, nargs="+", required=True, metavar="DIR",
        help="folders that hold runs, in any depth")
    add("--outdir", type=Path, required=True, metavar="DIR", help="where figures and tables go")
    what = parser.add_argument_group("what to show")
    options.add_choice(what)
    what.add_argument("--figures", nargs="+", choices=FIGURES, default=list(FIGURES),
                      help="default: all")
    what.add_argument("--ablation", nargs="+", metavar="FIG", default=[],
                      help="figures of the Dreamer paper to redraw even if no run is of their "
                           "variants: fig4, fig7, fig8")
    how = parser.add_argument_group("how to read and compare")
    options.add_reading(how)
    add = how.add_argument
    add("--end", type=options.frames, metavar="FRAMES", help="last frame on the curves' axis")
    add("--normalize", default="auto", metavar="SCALE",
        help="for aggregates: auto, none, a published method, or a CSV file with the columns "
             "task, low, high (default: auto)")
    add("--common-tasks", action="store_true",
        help="aggregate only over the tasks on which every method has a score")
    add("--formats", nargs="+", choices=("png", "pdf", "svg"), default=["png", "pdf"],
        help="default: png pdf")
    return parser.parse_args(arguments)


def plot(chosen: argparse.Namespace, console: Console) -> list[Path]:
    """Writes the chosen figures and tables; returns their paths.

    Figures show at most `MOST_METHODS` methods and say so. Tables hold all of them.
    """
    published = Published.load(chosen.published_dir)
    readings = choose(chosen.ablation, published.figures, "ablation figure")
    study = options.make_study(chosen, published, console)
    try:
        chosen.outdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot make {chosen.outdir}: {error.strerror}. Choose another "
                        "--outdir.") from error
    written: list[Path] = []

    def save_figure(figure: Figure, name: str) -> None:
        written.extend(save(figure, chosen.outdir / name, chosen.formats))

    for page, suffix in _pages(study.first_methods(MOST_METHODS)):
        if "curves" in chosen.figures:
            save_figure(figures.draw_curves(page, chosen.end), f"curves{suffix}")
        if "bars" in chosen.figures:
            save_figure(figures.draw_bars(page), f"final_scores{suffix}")
    if "ablation" in chosen.figures:
        _draw_sweeps(study, readings, save_figure)
        _draw_variants(study, readings, save_figure)
    if "tables" in chosen.figures:
        written += tables.write_scores(study, chosen.outdir)
    if {"aggregates", "profile", "improvement", "tables"} & set(chosen.figures):
        written += _over_tasks(study, chosen, save_figure)
    return written


def _pages(study: Study) -> list[tuple[Study, str]]:
    """Returns the study in parts that fit on a page, each with the suffix of its files."""
    pages = study.pages(_TASKS_A_PAGE)
    return [(page, f"_{number}" if len(pages) > 1 else "")
            for number, page in enumerate(pages, start=1)]


def _draw_sweeps(study: Study, readings: list[str], save_figure: Save) -> None:
    """Draws each parameter that the runs sweep, or that the paper's figures in `readings` do."""
    found = ablations.sweeps(study.methods)
    swept = [row.parameter for name in readings for row in study.published.ablation(name)]
    for parameter in dict.fromkeys([*found, *filter(None, swept)]):
        sweep = found.get(parameter, {})
        methods = [name for values in sweep.values() for name in values.values()]
        shown = study.only(methods)
        for page, suffix in _pages(shown) if methods else [(shown, "")]:
            figure = ablations.draw_sweep(page, parameter, sweep, study.published.rows)
            save_figure(figure, f"ablation_{parameter}{suffix}")


def _draw_variants(study: Study, readings: list[str], save_figure: Save) -> None:
    """Draws the variants among the runs, and the paper's figures of variants in `readings`."""
    swept = {name for sweep in ablations.sweeps(study.methods).values()
             for values in sweep.values() for name in values.values()}
    rest = [method for method in study.methods if method not in swept]
    asked = [name for name in readings
             if not any(row.parameter for row in study.published.ablation(name))]
    for name in dict.fromkeys([*ablations.VARIANTS, *asked]):
        methods = ablations.variants(rest, ablations.VARIANTS.get(name, ()))
        if methods or name in asked:
            for page, suffix in _pages(study.only(methods or rest).first_methods(MOST_METHODS)):
                figure = ablations.draw_variants(page, study.published.ablation(name))
                save_figure(figure, f"ablation_{name}{suffix}")


def _over_tasks(study: Study, chosen: argparse.Namespace, save_figure: Save) -> list[Path]:
    """Draws the figures over all tasks; returns the paths of their tables."""
    asked, written = set(chosen.figures), []
    summary = summarise(study, chosen.normalize, common_tasks=chosen.common_tasks,
                        resamples=chosen.resamples)
    if not summary.own:
        return []
    shown = summary.first_methods(MOST_METHODS)
    if "aggregates" in asked:
        save_figure(figures.draw_aggregates(shown), "aggregates")
    if "tables" in asked:
        written += tables.write_aggregates(summary, chosen.outdir)
    if "profile" in asked:
        save_figure(figures.draw_profiles(shown), "performance_profile")
    if {"improvement", "tables"} & asked:
        most = None if "tables" in asked else figures.MOST_PAIRS
        pairs, total = summary.improvements(most)
        if pairs and "improvement" in asked:
            save_figure(figures.draw_improvements(summary, pairs, total), "improvement")
        if pairs and "tables" in asked:
            written.append(tables.write_improvements(pairs, chosen.outdir))
    return written


if __name__ == "__main__":
    sys.exit(main())
