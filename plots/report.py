"""Writes one self-contained page on a run or a whole benchmark, beside published results.

    python plots/report.py --indir runs/ --out report.html
"""

from __future__ import annotations

import base64
import dataclasses
import io
import math
import re
import shlex
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

from dreamer.config.command_line import CommandLine, Option, run_main
from dreamer.config.config import load_config
from dreamer.config.schema import DREAMER
from dreamer.errors import UserError
from dreamer.io.files import check_writable_file, open_to_read, write_file
from dreamer.io.yaml_files import read_yaml
from dreamer.logs.terminal import duration
from plots import figures, tables
from plots.aggregates import summarise
from plots.labels import short_frames, short_score, task_title
from plots.options import CHOICE, READING, load_published, make_study
from plots.runs import Run, last_records
from plots.study import Study
from plots.style import MOST_METHODS

LINE = CommandLine(
    "python plots/report.py",
    "Writes one page on all runs below --indir: curves and scores beside published ones, clips, "
    "configs, hours, and how to make each run again.",
    (
        Option("indir", "", "Folders that hold runs, in any depth; or one run.", many=True,
               required=True),
        Option("out", "", "The page, such as report.html.", required=True),
        Option("title", "Dreamer: report", "Title of the page."),
        Option("clips", 20, "Most megabytes of clips in the page.", min=1),
        *CHOICE,
        *READING,
    ),
    takes_config=False,
)  # fmt: skip
MOST_BARS = 30
_PIXELS = 125  # to an inch of a figure: its text is then about as large as the page's
_CLIP = re.compile(r"(?P<name>.+)-(?P<step>\d+)\.gif")
_RUN_KEYS = ("task", "seed", "logdir", "method")  # they name a run, or say where it lies
Context = dict[str, Any]  # values of the template by name


def main(argv: Sequence[str]) -> int:
    """Reads the command line and the runs, writes the page, and prints its path."""
    options = LINE.parse(argv).options
    out = Path(options["out"])
    check_writable_file(out, "--out")
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    study = make_study(options, load_published(options), console)
    with console.status("drawing"):
        page = render(study, options["title"], options["clips"] * 1_000_000, options["resamples"])
    write_file(out, page.encode("utf-8", "replace"))
    print(out)
    return 0


def render(study: Study, title: str, clip_bytes: int, resamples: int) -> str:
    """Returns the page, with at most `clip_bytes` of clips."""
    runs = [run for found in study.runs.values() for run in found]
    details = [Details(run) for run in runs]
    seconds = [found.seconds for found in details if found.seconds is not None]
    first = study.first_methods(MOST_METHODS)
    bars = first.pages(MOST_BARS)[0]
    legend, panels = figures.draw_panels(first)
    summary = summarise(study, resamples=resamples)
    over_tasks = summary if summary.own and len(study.tasks) > 1 else None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("report.html").render(
        title=title, time=time.strftime("%Y-%m-%d %H:%M"), study=study, runs=runs,
        seconds=seconds, most_bars=MOST_BARS, legend=_picture(legend, "What the lines are"),
        panels=[_picture(panel, f"Learning curves on {task_title(task)}")
                for task, panel in zip(first.tasks, panels, strict=True)],
        curve_caption=figures.curve_caption(first), scores=tables.score_cells(study),
        score_note=tables.SCORE_NOTE,
        bars=_picture(figures.draw_bars(bars), "Bars of the same scores"),
        over_tasks=over_tasks and {
            "scale": summary.words, "cells": tables.aggregate_cells(summary),
            "picture": _picture(figures.draw_aggregates(summary.first_methods(MOST_METHODS)),
                                "The same, drawn")},
        clips=_clips(runs, clip_bytes),
        differences=_differences([found for found in details if found.config]),
        details=[found.context() for found in details])


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
                picture = _image(content, "gif", f"{name} of {run.task}, {run.method}")
                caption = f"{name.replace('_', ' ')}, {short_frames(step)} frames"
                pictures.append({**picture, "caption": caption})
        if pictures:
            shown.append((f"{task_title(run.task)}: {run.method}, seed {run.seed}", pictures))
        left_out += bool(newest) and not pictures
    return {"runs": shown, "left_out": left_out}


def _newest_clips(folder: Path) -> dict[str, tuple[int, Path]]:
    """Returns by name the step and the path of the newest clip."""
    try:
        names = [] if folder.is_symlink() else sorted(path.name for path in folder.iterdir())
    except OSError:
        return {}
    clips = filter(None, map(_CLIP.fullmatch, names))
    return {clip["name"]: (int(clip["step"]), folder / clip[0])
            for clip in sorted(clips, key=lambda clip: int(clip["step"]))}


def _gif(path: Path, limit: int) -> bytes:
    """Returns a regular GIF file of at most that many bytes; nothing for any other file."""
    try:
        with open(open_to_read(path), "rb") as file:
            content = file.read(limit + 1)
    except OSError:
        return b""
    return content if len(content) <= limit and content[:6] in (b"GIF87a", b"GIF89a") else b""


def _differences(details: Sequence[Details]) -> tables.Cells:
    """Returns the config keys on which the runs differ, by method."""
    values: dict[str, dict[str, set[str]]] = {}
    for found in details:
        for key, value in found.config.items():
            if key not in _RUN_KEYS:
                by_method = values.setdefault(key, {})
                by_method.setdefault(found.run.method, set()).add(str(value))
    methods = list(dict.fromkeys(found.run.method for found in details))
    return [["Key", *methods]] + [
        [key, *(" / ".join(sorted(by_method.get(method, {"-"}))) for method in methods)]
        for key, by_method in values.items()
        if len(set().union(*by_method.values())) > 1 or len(by_method) < len(methods)]


def _picture(figure: Figure, alt: str) -> Context:
    """Returns a figure as an image that scales; its text is paths, so it needs no font."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    return _image(file.getvalue(), "svg+xml", alt, math.ceil(figure.get_figwidth() * _PIXELS))


def _image(content: bytes, kind: str, alt: str, width: int | None = None) -> Context:
    return {"kind": kind, "data": base64.b64encode(content).decode("ascii"), "alt": alt,
            "width": width}


@dataclasses.dataclass
class Details:
    """What a run's directory says of the run beside its curve.

    Attributes:
        run: the run.
        record: its config.yaml; empty if it is missing or not ours.
        config: the config's scalars by dotted key; empty if not known.
        step, seconds: the run's frames, and its work in all attempts (None if not known).
    """

    run: Run

    def __post_init__(self) -> None:
        try:
            self.record = read_yaml(self.run.folder / "config.yaml", of_run=True)
        except UserError:
            self.record = {}
        self.config: dict[str, Any] = {}
        for key, value in _mapping(self.record.get("config")).items():
            group = {f"{key}.{name}": leaf for name, leaf in _mapping(value).items()}
            self.config |= {name: leaf for name, leaf in (group or {key: value}).items()
                            if isinstance(leaf, bool | int | float | str)}
        last: dict[str, Any] = next(reversed(last_records(self.run.metrics)), {})
        self.step, seconds = int(last.get("step", self.run.x[-1])), last.get("wall_time")
        self.seconds = float(seconds) if isinstance(seconds, int | float) else None

    def context(self) -> Context:
        """Returns the run's headline, facts and command."""
        run, record = self.run, self.record
        hours = "" if self.seconds is None else f", {duration(self.seconds)} hours"
        score = f"{short_score(float(run.y[-1]))} at {short_frames(float(run.x[-1]))} frames"
        versions = [f"{k} {v}" for k, v in _mapping(record.get("versions")).items()]
        # A folder below the present one is named from there, because pages are passed on.
        here, folder = Path.cwd(), run.folder
        directory = folder.relative_to(here) if folder.is_relative_to(here) else folder
        return {
            "headline": f"{run.name}: {score}{hours}",
            "facts": [("Frames", f"{self.step:,}"), ("Machine", self._machine()),
                      ("Commit", str(record.get("commit") or "")),
                      ("Versions", ", ".join(versions)), ("Directory", str(directory))],
            "command": self._command()}

    def _machine(self) -> str:
        host, machine = str(self.record.get("host") or ""), _mapping(self.record.get("machine"))
        gpus, memory = machine.get("gpus"), machine.get("memory")
        words = [str(machine.get("processor", "?")), f"{machine.get('cores', '?')} cores",
                 f"{memory / 1e9:.0f} GB" if isinstance(memory, int) else "",
                 *map(str, gpus if isinstance(gpus, list) else [])]
        return f"{', '.join(filter(None, words))} ({host})" if machine else host

    def _command(self) -> str:
        """Returns the command that makes such a run again; empty if its config is not known."""
        if not self.config:
            return ""
        agent, presets = str(self.record.get("agent") or DREAMER), self.record.get("presets")
        presets = list(map(str, presets)) if isinstance(presets, list) else []
        task, seed = self.config.get("task", self.run.task), self.config.get("seed", 0)
        words = ["dreamer.run"] if agent == DREAMER else ["baselines.run", "--agent", agent]
        words += [f"--task={task}", f"--seed={seed}", *(["--configs", *presets] if presets else [])]
        try:
            given = load_config(*presets, task=str(self.config.get("task")), agent=agent).flat()
        except UserError:
            given = {}  # the presets are not there: name every key
        for key, value in self.config.items():
            own = key in _RUN_KEYS and not (key == "method" and value)
            if given.get(key) != value and not own:
                words.append(f"--{key}={str(value).lower() if isinstance(value, bool) else value}")
        return shlex.join(["python", "-m", *words])


def _mapping(value: object) -> dict[str, Any]:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


if __name__ == "__main__":
    run_main(main)
