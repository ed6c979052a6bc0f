"""Writes one self-contained page on a run or a whole benchmark, beside published results.

    python plots/report.py --indir runs/ --out report.html
"""

from __future__ import annotations

import base64
import dataclasses
import io
import math
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script from anywhere: make the checkout importable
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from plots import check_packages

    check_packages()

import jinja2
from matplotlib.figure import Figure
from rich.console import Console

from dreamer.config.command_line import RUN_KEYS, CommandLine, Option, command_again, run_main
from dreamer.config.schema import DREAMER
from dreamer.io.files import check_writable_file, open_to_read, write_file
from dreamer.logs.terminal import duration
from plots import figures, tables
from plots.aggregates import summarise
from plots.labels import short_frames, short_score, task_title
from plots.published import Published
from plots.runs import Run, last_records
from plots.study import CHOICE, MOST_TASKS, READING, Study, cut_note, make_study

LINE = CommandLine(
    "python plots/report.py",
    "Writes one page on all runs below --indir: curves and scores beside published ones, clips, "
    "configs, hours, and how to make each run again.",
    (
        Option("indir", "", "Folders that hold runs, in any depth; or one run.", many=True,
               required=True),
        Option("out", "", "The page, such as report.html.", required=True),
        Option("title", "Dreamer: report", "Title of the page."),
        Option("clips", 20, "Maximum size of all clips in the page, in megabytes.", min=1),
        *CHOICE,
        *READING,
    ),
    takes_config=False,
)  # fmt: skip
_PIXELS = 125  # to an inch of a figure: its text is then about as large as the page's
_CLIP = re.compile(r"(?P<name>.+)-(?P<step>\d+)\.gif")
Context = dict[str, Any]  # values of the template by name


def main(argv: Sequence[str]) -> int:
    """Reads the command line and the runs, writes the page, and prints its path."""
    options = LINE.parse(argv).options
    out = Path(options["out"])
    check_writable_file(out, "--out")
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    study = make_study(options, Published(options["published-dir"]), console)
    with console.status("drawing"):
        page = render(study, options["title"], options["clips"] * 1_000_000, options["resamples"])
    write_file(out, page.encode("utf-8", "replace"))
    print(out)
    return 0


def render(study: Study, title: str, clip_bytes: int, resamples: int) -> str:
    """Returns the page, with at most `clip_bytes` of clips."""
    details = [Details(run) for found in study.runs.values() for run in found]
    seconds = [found.seconds for found in details if found.seconds is not None]
    first = study.first_methods()
    (bars, _), *_ = first.pages()
    legend, panels = figures.draw_panels(first)
    summary = summarise(study, resamples=resamples)
    over_tasks = summary if summary.own and len(study.tasks) > 1 else None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"duration": duration, "frames": short_frames, "score": short_score}
    return environment.get_template("report.html").render(
        title=title, time=time.strftime("%Y-%m-%d %H:%M"), study=study,
        notes=cut_note(study.methods) + study.notes,
        seconds=seconds, most_bars=MOST_TASKS, legend=_picture(legend, "What the lines are"),
        panels=[_picture(panel, f"Learning curves on {task_title(task)}")
                for task, panel in zip(first.tasks, panels, strict=True)],
        curve_caption=figures.curve_caption(first), scores=tables.score_cells(study),
        score_note=tables.SCORE_NOTE,
        bars=_picture(figures.draw_bars(bars), "Bars of the same scores"),
        over_tasks=over_tasks and {
            "scale": summary.words, "cells": tables.aggregate_cells(summary),
            "picture": _picture(figures.draw_aggregates(summary.first_methods()),
                                "The same, drawn")},
        clips=_clips([found.run for found in details], clip_bytes),
        differences=_differences([found for found in details if found.config]),
        details=details)


def _clips(runs: Sequence[Run], budget: int) -> Context:
    """Returns the newest clips of the first seed of each task and method, within `budget` bytes."""
    first = {(run.task, run.method): run for run in reversed(runs)}
    shown, left_out = [], 0
    for run in reversed(first.values()):
        pictures = []
        newest = _newest_clips(run.folder / "videos")
        for name, (step, path) in sorted(newest.items()):
            if content := _gif(path, budget):
                budget -= len(content)
                pictures.append(_image(
                    content, "gif", f"{name} of {run.task}, {run.method}",
                    caption=f"{name.replace('_', ' ')}, {short_frames(step)} frames"))
        if pictures:
            shown.append((f"{task_title(run.task)}: {run.method}, seed {run.seed}", pictures))
        left_out += bool(newest) and not pictures
    return {"runs": shown, "left_out": left_out}


def _newest_clips(folder: Path) -> dict[str, tuple[int, Path]]:
    """Returns by name the step and the path of the newest clip."""
    paths = [] if folder.is_symlink() else folder.glob("*.gif")
    clips = sorted((int(clip["step"]), path, clip["name"]) for path in paths
                   if (clip := _CLIP.fullmatch(path.name)))
    return {name: (step, path) for step, path, name in clips}


def _gif(path: Path, limit: int) -> bytes:
    """Returns a regular GIF file of at most `limit` bytes; nothing for any other file."""
    try:
        with open(open_to_read(path), "rb") as file:
            content = file.read(limit + 1)
    except OSError:
        return b""
    return content if len(content) <= limit and content[:6] in (b"GIF87a", b"GIF89a") else b""


def _differences(details: Sequence[Details]) -> tables.Cells:
    """Returns the config keys on which the runs differ, by method."""
    methods = list(dict.fromkeys(found.run.method for found in details))
    rows = []
    for key in dict.fromkeys(key for found in details for key in found.config):
        values = [{str(found.config[key]) for found in details
                   if found.run.method == method and key in found.config} for method in methods]
        if key not in RUN_KEYS and (len(set().union(*values)) > 1 or not all(values)):
            rows.append([key, *(" / ".join(sorted(value or {"-"})) for value in values)])
    return [["Key", *methods], *rows]


def _picture(figure: Figure, alt: str) -> Context:
    """Returns a figure as an image that scales; its text is paths, so it needs no font."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    width = math.ceil(figure.get_figwidth() * _PIXELS)
    return _image(file.getvalue(), "svg+xml", alt, width=width)


def _image(content: bytes, kind: str, alt: str, **more: object) -> Context:
    return {"kind": kind, "data": base64.b64encode(content).decode("ascii"), "alt": alt, **more}


@dataclasses.dataclass
class Details:
    """What a run's directory says of the run beside its curve.

    Attributes:
        run: the run.
        config: the config's scalars by dotted key; empty if not known.
        step, seconds: the run's frames, and its work in all attempts (None if not known).
    """

    run: Run

    def __post_init__(self) -> None:
        self.record = self.run.record
        leaves = ((f"{key}.{name}" if name else key, leaf)
                  for key, value in _mapping(self.record.get("config")).items()
                  for name, leaf in (_mapping(value) or {"": value}).items())
        self.config = {key: leaf for key, leaf in leaves if isinstance(leaf, int | float | str)}
        last: dict[str, Any] = next(reversed(last_records(self.run.metrics)), {})
        self.step, seconds = int(last.get("step", self.run.x[-1])), last.get("wall_time")
        self.seconds = float(seconds) if isinstance(seconds, int | float) else None

    @property
    def facts(self) -> dict[str, object]:
        """Facts by name, with an empty value where unknown."""
        record, machine = self.record, _mapping(self.record.get("machine"))
        gpus, memory = machine.get("gpus"), machine.get("memory")
        words = [f"{machine.get('processor', '?')}", f"{machine.get('cores', '?')} cores",
                 f"{memory / 1e9:.0f} GB" if isinstance(memory, int) else "",
                 *map(str, gpus if isinstance(gpus, list) else [])]
        versions = [f"{name} {number}" for name, number in _mapping(record.get("versions")).items()]
        # A folder below the present one is named from there, because pages are passed on.
        here, folder, host = Path.cwd(), self.run.folder, record.get("host") or ""
        return {
            "Frames": f"{self.step:,}",
            "Machine": f"{', '.join(filter(None, words))} ({host})" if machine else host,
            "Commit": record.get("commit"),
            "Versions": ", ".join(versions),
            "Directory": folder.relative_to(here) if folder.is_relative_to(here) else folder}

    @property
    def command(self) -> str:
        """The command that makes such a run again; empty if its config is not known."""
        if not self.config:
            return ""
        agent, presets = str(self.record.get("agent") or DREAMER), self.record.get("presets")
        presets = list(map(str, presets)) if isinstance(presets, list) else []
        return command_again({"task": self.run.task, **self.config}, presets, agent)


def _mapping(value: object) -> dict[str, Any]:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


if __name__ == "__main__":
    run_main(main)
