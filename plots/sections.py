"""The parts of the report page, from a study."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from dreamer.logs.terminal import duration
from plots import figures, summaries, tables
from plots.details import OWN_KEYS, Details, clips, has_clips, read_details, seconds_worked
from plots.html import Html, element, image, join, page, table
from plots.loading import Run
from plots.names import task_title
from plots.normalise import scale
from plots.numbers import short_frames, short_score
from plots.study import Study
from plots.style import MOST_METHODS

MOST_PANELS = 120
MOST_RUNS = 500
_BAR_TASKS = 30
_PIXELS = 125  # to an inch of a figure: its text is then about as large as the page's


def whole_page(study: Study, title: str, made: str, clip_bytes: int, resamples: int) -> Html:
    """Returns the page.

    Args:
        study: the runs, beside what.
        title: of the page.
        made: when, in words.
        clip_bytes: that clips may take in it.
        resamples: of the bootstrap.
    """
    runs = [run for found in study.runs.values() for run in found]
    details = [read_details(run) for run in runs[:MOST_RUNS]]
    seconds = [found.seconds for found in details] + [*map(seconds_worked, runs[MOST_RUNS:])]
    return page(
        title,
        element("h1", title),
        _overview(study, seconds, made),
        _curves(study.first_methods(MOST_METHODS)),
        _scores(study),
        _aggregates(study, resamples),
        _clips(runs, clip_bytes),
        _differences(details, len(runs)),
        _runs(details, len(runs)),
    )


def _overview(study: Study, seconds: Sequence[float | None], made: str) -> Html:
    runs, told = len(seconds), [value for value in seconds if value is not None]
    silent = f" ({runs - len(told)} of them tell none)" if len(told) < runs else ""
    facts = [f"{runs} run{'s' if runs != 1 else ''} of {len(study.methods)} method(s) on "
             f"{len(study.tasks)} task(s), read {made}.",
             f"Together {sum(told) / 3600:,.1f} hours of work by the runs' own clocks{silent}."]
    if len(study.methods) > MOST_METHODS:
        facts.append(f"Figures draw the first {MOST_METHODS} methods, tables hold all.")
    if len(study.tasks) > _BAR_TASKS:
        facts.append(f"Bars are drawn of the first {_BAR_TASKS} tasks.")
    notes = study.all_notes()
    listed = element("ul", *(element("li", note) for note in notes))
    return join([element("p", " ".join(facts)),
                 element("h3", "What is missing or was skipped") if notes else "",
                 listed if notes else ""])


def _curves(study: Study) -> Html:
    ends = [float(found.x[-1]) for found in study.curves.values()]
    shown = study.pages(MOST_PANELS)[0]
    panels = [
        element("figure", _picture(figures.draw_panel(shown, task, max(ends)),
                                   f"Learning curves on {task_title(task)}"))
        for task in shown.tasks
    ]
    left = len(study.tasks) - len(shown.tasks)
    return join([
        element("h2", "Learning curves"),
        _picture(figures.draw_legend(shown, max(ends)), "What the lines are", class_="legend"),
        element("div", *panels, class_="grid"),
        element("p", figures.curve_caption(study), class_="small"),
        element("p", f"{left} more tasks are not drawn.") if left else "",
    ])


def _scores(study: Study) -> Html:
    head, *rows = tables.score_cells(study)
    drawn = study.first_methods(MOST_METHODS).pages(_BAR_TASKS)[0]
    of_each = " of each run" if study.at is None else ""
    return join([
        element("h2", f"Scores {study.at_words()}{of_each}, beside published ones"),
        table(head, rows),
        element("p", f"{tables.SCORE_NOTE} Published scores are of the frames at which ours are, "
                "as far as a curve was published, and else of those named.", class_="small"),
        element("div", _picture(figures.draw_bars(drawn), "Bars of the same scores"),
                class_="wide", tabindex="0"),
    ])


def _aggregates(study: Study, resamples: int) -> Html:
    bounds, words = scale("auto", study.tasks, study.published)
    summary = summaries.summarise(study, bounds, words, resamples=resamples)
    if len(study.tasks) < 2 or not any(entry.is_own for entry in summary.entries):
        return Html("")
    found = summaries.estimates(summary)
    head, *rows = tables.aggregate_cells(found)
    shown = summary.first_methods(MOST_METHODS)
    drawn = [pair for pair in found if pair[0] in shown.entries]
    return join([
        element("h2", f"Over all tasks ({words})"),
        table(head, rows),
        element("p", "In brackets the 95% stratified bootstrap interval over runs.",
                class_="small"),
        element("div", _picture(summaries.draw_aggregates(shown, drawn), "The same, drawn"),
                class_="wide", tabindex="0"),
    ])


def _clips(runs: Sequence[Run], budget: int) -> Html:
    """The newest clips of the first seed of each task and method, as far as there is room."""
    first = list({(run.task, run.method): run for run in reversed(runs)}.values())[::-1]
    parts, left_out = [], 0
    for run in first:
        found = clips(run, budget)
        budget -= sum(len(content) for *_, content in found)
        left_out += not found and has_clips(run)
        shown = [
            element("figure", image(content, "gif", f"{name} of {run.task}, {run.method}",
                                    loading="lazy"),
                    element("figcaption", f"{name.replace('_', ' ')}, {short_frames(step)} frames"))
            for name, step, content in found
        ]
        if shown:
            parts += [element("h3", f"{task_title(run.task)}: {run.method}, seed {run.seed}"),
                      element("div", *shown, class_="clips")]
    if not parts and not left_out:
        return Html("")
    said = "Evaluation episodes; open loop: truth, the model's prediction, the difference."
    if left_out:
        said += f" {left_out} run(s) with clips had no room here; see --clips."
    return join([element("h2", "Clips"), element("p", said, class_="small"), *parts])


def _differences(details: Sequence[Details], total: int) -> Html:
    """Config keys on which the methods are not all alike, by method."""
    known = [found for found in details if found.config]
    values: dict[str, dict[str, set[str]]] = {}
    for found in known:
        for key, value in found.config.items():
            if key not in OWN_KEYS:
                by_method = values.setdefault(key, {})
                by_method.setdefault(found.run.method, set()).add(str(value))
    methods = list(dict.fromkeys(found.run.method for found in known))
    rows = [
        [key, *(" / ".join(sorted(by_method.get(method, {"-"}))) for method in methods)]
        for key, by_method in values.items()
        if len(set().union(*by_method.values())) > 1 or len(by_method) < len(methods)
    ]
    if not known:
        return Html("")
    some = f"of the first {len(details)} runs" if total > len(details) else "runs"
    said = (f"All {some} have the same config, but for task and seed." if not rows else
            f"Keys that do not have one value in all {some}; where a method has several: a / b.")
    return join([element("h2", "Config differences"), element("p", said, class_="small"),
                 table(["Key", *methods], rows) if rows else ""])


def _runs(details: Sequence[Details], total: int) -> Html:
    shown = [element("details", element("summary", _headline(found)), *_facts(found))
             for found in details]
    more = f"{total - len(details)} more runs are not listed." if total > len(details) else ""
    return join([element("h2", "Runs, and how to make each again"), *shown,
                 element("p", more) if more else ""])


def _headline(found: Details) -> str:
    hours = "" if found.seconds is None else f", {duration(found.seconds)} hours"
    last = f"{short_score(float(found.run.y[-1]))} at {short_frames(float(found.run.x[-1]))}"
    return f"{found.name}: {last} frames{hours}"


def _from_here(path: Path) -> str:
    """A folder below the present one by its way from there: pages are passed on to others."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _facts(found: Details) -> list[Html]:
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    rows = [("Frames", f"{found.step:,}"), ("Machine", found.hardware()),
            ("Commit", found.commit), ("Versions", versions),
            ("Directory", _from_here(found.run.path.parent))]
    listed = element("ul", *(element("li", element("b", f"{name}: "), text)
                             for name, text in rows if text))
    command = found.command()
    return [listed, element("pre", command) if command else
            element("p", "Its config.yaml is missing or not ours: how it was made is not known.")]


def _picture(figure: Figure, alt: str, **attributes: str) -> Html:
    """A figure as an image that scales; its own text is paths, so it needs no font."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    width = math.ceil(figure.get_figwidth() * _PIXELS)
    return image(file.getvalue(), "svg+xml", alt, width=str(width), **attributes)
