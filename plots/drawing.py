"""Draws every figure and writes every table that was asked for."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from plots import ablations, figures, summaries, tables
from plots.normalise import scale
from plots.study import Study
from plots.style import MOST_METHODS, save

_TASKS_A_PAGE = 30

Keep = Callable[[Figure, str], None]
"""Saves a figure under a name."""


def draw_all(study: Study, options: argparse.Namespace, readings: list[str]) -> list[Path]:
    """Writes the figures and tables into `options.outdir`; returns their paths.

    `readings` are the paper's ablation figures to redraw even without runs of their variants.
    Figures show at most `MOST_METHODS` methods and say so; tables hold all of them.

    Raises:
        UserError: an unknown normalisation, or a folder that cannot be written to.
    """
    asked, written = options.figures, []

    def keep(figure: Figure, name: str) -> None:
        written.extend(save(figure, options.outdir / name, options.formats))

    shown = study.first_methods(MOST_METHODS)
    for page, suffix in _pages(shown):
        if "curves" in asked:
            keep(figures.draw_curves(page, options.end), f"curves{suffix}")
        if "bars" in asked:
            keep(figures.draw_bars(page), f"final_scores{suffix}")
    if "ablation" in asked:
        _ablations(study, readings, keep)
    if "tables" in asked:
        written += _score_tables(study, options.outdir)
    if {"aggregates", "profile", "improvement", "tables"} & set(asked):
        written += _over_tasks(study, options, keep)
    return written


def _over_tasks(study: Study, options: argparse.Namespace, keep: Keep) -> list[Path]:
    """Draws what is over all tasks; returns the paths of its tables alone."""
    asked, written = options.figures, []
    bounds, words = scale(options.normalize, study.tasks, study.published)
    summary = summaries.summarise(study, bounds, words, common_tasks=options.common_tasks,
                                  resamples=options.resamples)
    if not any(entry.is_own for entry in summary.entries):
        return []
    shown = summary.first_methods(MOST_METHODS)
    if {"aggregates", "tables"} & set(asked):
        found = summaries.estimates(summary)
        if "aggregates" in asked:
            drawn = [pair for pair in found if pair[0] in shown.entries]
            keep(summaries.draw_aggregates(shown, drawn), "aggregates")
        if "tables" in asked:
            stem = options.outdir / "aggregates"
            written += tables.write_cells(stem, tables.aggregate_cells(found), summary.notes)
            written.append(tables.write_records(stem.with_suffix(".csv"),
                                                tables.aggregate_records(found, words)))
    if "profile" in asked:
        keep(summaries.draw_profiles(shown), "performance_profile")
    if {"improvement", "tables"} & set(asked):
        most = None if "tables" in asked else summaries.MOST_PAIRS
        rows, pairs = summaries.improvements(summary, most)
        if rows and "improvement" in asked:
            keep(summaries.draw_improvements(summary, rows, pairs), "improvement")
        if rows and "tables" in asked:
            written.append(tables.write_records(options.outdir / "improvement.csv",
                                                tables.improvement_records(rows)))
    return written


def _ablations(study: Study, asked: Sequence[str], keep: Keep) -> None:
    """Draws every parameter that the runs sweep, the variants among them, and figures asked for."""
    found = ablations.sweeps(study.methods)
    swept = {name for sweep in found.values() for values in sweep.values()
             for name in values.values()}
    rest = [method for method in study.methods if method not in swept]
    by_figure = {name: study.published.ablation(name) for name in asked}
    for rows in by_figure.values():
        found |= {row.parameter: {} for row in rows if row.parameter and row.parameter not in found}
    for parameter, sweep in found.items():
        methods = [name for values in sweep.values() for name in values.values()]
        shown = study.only(methods)
        for page, suffix in _pages(shown) if methods else [(shown, "")]:
            figure = ablations.draw_sweep(page, parameter, sweep, study.published.rows)
            keep(figure, f"ablation_{parameter}{suffix}")
    alone = [name for name, rows in by_figure.items() if not any(row.parameter for row in rows)]
    for name in dict.fromkeys([*ablations.VARIANTS, *alone]):
        methods = ablations.variants(rest, ablations.VARIANTS.get(name, ()))
        if methods or name in alone:
            shown = study.only(methods or rest).first_methods(MOST_METHODS)
            for page, suffix in _pages(shown):
                figure = ablations.draw_variants(page, study.published.ablation(name))
                keep(figure, f"ablation_{name}{suffix}")


def _pages(study: Study) -> list[tuple[Study, str]]:
    """Returns the study in parts that fit on a page, each with what its files' names end in."""
    pages = study.pages(_TASKS_A_PAGE)
    if len(pages) == 1:
        return [(study, "")]
    return [(page, f"_{number}") for number, page in enumerate(pages, start=1)]


def _score_tables(study: Study, outdir: Path) -> list[Path]:
    written = [
        tables.write_records(outdir / "scores.csv", tables.score_records(study)),
        tables.write_records(outdir / "curves.csv", tables.curve_records(study)),
    ]
    cells = tables.score_cells(study)
    notes = [tables.SCORE_NOTE, *study.all_notes()]
    return written + tables.write_cells(outdir / "scores", cells, notes)
