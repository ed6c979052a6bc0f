"""Writes one self-contained page on a run or a whole benchmark, beside published results.

    python plots/report.py --indir runs/ --out report.html
"""

from __future__ import annotations

import argparse
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

import jinja2
from matplotlib.figure import Figure
from rich.console import Console

from dreamer.config.config import load_config
from dreamer.config.schema import DREAMER
from dreamer.errors import UserError
from dreamer.io.files import atomic_write, check_writable_file, open_to_read
from dreamer.io.yaml_files import read_yaml
from dreamer.logs.terminal import duration
from plots import figures, options, tables
from plots.aggregates import summarise
from plots.labels import short_frames, short_score, task_title
from plots.loading import Run, last_records
from plots.published import Published
from plots.study import Study
from plots.style import MOST_METHODS

MOST_PANELS = 120
MOST_RUNS = 500
_MOST_BARS = 30
_PIXELS = 125  # to an inch of a figure: its text is then about as large as the page's
_CLIP = re.compile(r"(?P<name>.+)-(?P<step>\d+)\.gif")
_RUN_KEYS = ("task", "seed", "logdir", "method")  # they name a run, or say where it lies

Context = dict[str, Any]
"""Values of the template report.html by name."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit status: 0, or 2 after a user's mistake."""
    chosen = parse(arguments)
    return options.run_program("report.py", lambda console: [report(chosen, console)],
                               "nothing was written.")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Returns the options; a usage error ends with one line and status 2."""
    parser = options.OneLineParser(
        prog="plots/report.py",
        description="Writes one page on all runs below --indir: curves and scores beside "
                    "published ones, clips, configs, hours, and how to make each run again.")
    add = parser.add_argument
    add("--indir", type=Path, nargs="+", required=True, metavar="DIR",
        help="folders that hold runs, in any depth; or one run")
    add("--out", type=Path, required=True, metavar="FILE", help="the page, such as report.html")
    add("--title", default="Dreamer: report", help="default: Dreamer: report")
    add("--clips", type=options.count, default=20, metavar="MB",
        help="most megabytes of clips in the page (default: 20)")
    options.add_choice(parser.add_argument_group("what to show"))
    options.add_reading(parser.add_argument_group("how to read"))
    return parser.parse_args(arguments)


def report(chosen: argparse.Namespace, console: Console) -> Path:
    """Reads the runs and writes the page; returns its path.

    Raises:
        UserError: a folder, a name or an option is wrong.
    """
    check_writable_file(chosen.out, "--out")
    study = options.make_study(chosen, Published.load(chosen.published_dir), console)
    with console.status("drawing"):
        page = render(study, chosen.title, chosen.clips * 1_000_000, chosen.resamples)
    with atomic_write(chosen.out) as file:
        file.write(page.encode("utf-8", "replace"))
    return chosen.out


def render(study: Study, title: str, clip_bytes: int, resamples: int) -> str:
    """Returns the page, with at most `clip_bytes` of clips."""
    runs = [run for found in study.runs.values() for run in found]
    details = [Details.read(run) for run in runs[:MOST_RUNS]]
    seconds = [found.seconds for found in details]
    seconds += [_seconds(_last_record(run)) for run in runs[MOST_RUNS:]]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("report.html").render(
        title=title, facts=_facts(study, seconds), notes=study.all_notes(),
        curves=_curves(study.first_methods(MOST_METHODS)), scores=_scores(study),
        aggregates=_aggregates(study, resamples), clips=_clips(runs, clip_bytes),
        differences=_differences(details, len(runs)),
        runs=[found.context() for found in details], more_runs=len(runs) - len(details))


def _facts(study: Study, seconds: Sequence[float | None]) -> list[str]:
    runs, known = len(seconds), [value for value in seconds if value is not None]
    unknown = f" ({runs - len(known)} of them tell none)" if len(known) < runs else ""
    facts = [f"{runs} run{'s' if runs != 1 else ''} of {len(study.methods)} method(s) on "
             f"{len(study.tasks)} task(s), read {time.strftime('%Y-%m-%d %H:%M')}.",
             f"Together {sum(known) / 3600:,.1f} hours of work by the runs' own clocks{unknown}."]
    if len(study.methods) > MOST_METHODS:
        facts.append(f"Figures draw the first {MOST_METHODS} methods, tables hold all.")
    if len(study.tasks) > _MOST_BARS:
        facts.append(f"Bars are drawn of the first {_MOST_BARS} tasks.")
    return facts


def _curves(study: Study) -> Context:
    end = float(max(found.x[-1] for found in study.curves.values()))
    shown = study.pages(MOST_PANELS)[0]
    panels = [_picture(figures.draw_panel(shown, task, end),
                       f"Learning curves on {task_title(task)}") for task in shown.tasks]
    return {"legend": _picture(figures.draw_legend(shown, end), "What the lines are"),
            "panels": panels, "caption": figures.curve_caption(study),
            "left_out": len(study.tasks) - len(shown.tasks)}


def _scores(study: Study) -> Context:
    shown = study.first_methods(MOST_METHODS).pages(_MOST_BARS)[0]
    of_each = " of each run" if study.at is None else ""
    return {"title": f"Scores {study.at_words()}{of_each}, beside published ones",
            "cells": tables.score_cells(study),
            "note": f"{tables.SCORE_NOTE} Published scores are of the frames at which ours are, "
                    "as far as a curve was published, and else of those named.",
            "bars": _picture(figures.draw_bars(shown), "Bars of the same scores")}


def _aggregates(study: Study, resamples: int) -> Context | None:
    summary = summarise(study, resamples=resamples)
    if len(study.tasks) < 2 or not any(entry.is_own for entry in summary.entries):
        return None
    found = summary.aggregates()
    shown = summary.first_methods(MOST_METHODS)
    drawn = [pair for pair in found if pair[0] in shown.entries]
    return {"scale": summary.words, "cells": tables.aggregate_cells(found),
            "figure": _picture(figures.draw_aggregates(shown, drawn), "The same, drawn")}


def _clips(runs: Sequence[Run], budget: int) -> Context:
    """Returns the newest clips of the first seed of each task and method, within `budget` bytes."""
    first = {(run.task, run.method): run for run in reversed(runs)}
    shown, left_out = [], 0
    for run in reversed(first.values()):
        pictures = []
        newest = _newest_clips(run.folder / "videos")
        for name, (step, path) in sorted(newest.items()):
            content = _gif(path, budget)
            if content:
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
    newest: dict[str, tuple[int, Path]] = {}
    try:
        paths = [] if folder.is_symlink() else sorted(folder.iterdir())
    except OSError:
        return {}
    for path in paths:
        match = _CLIP.fullmatch(path.name)
        if match and int(match["step"]) >= newest.get(match["name"], (-1, path))[0]:
            newest[match["name"]] = int(match["step"]), path
    return newest


def _gif(path: Path, limit: int) -> bytes:
    """Returns a regular GIF file of at most that many bytes; nothing for any other file."""
    try:
        with open(open_to_read(path), "rb") as file:
            content = file.read(limit + 1)
    except OSError:
        return b""
    return content if len(content) <= limit and content[:6] in (b"GIF87a", b"GIF89a") else b""


def _differences(details: Sequence[Details], total: int) -> Context | None:
    """Returns the config keys on which the runs differ, by method."""
    known = [found for found in details if found.config]
    if not known:
        return None
    values: dict[str, dict[str, set[str]]] = {}
    for found in known:
        for key, value in found.config.items():
            if key not in _RUN_KEYS:
                by_method = values.setdefault(key, {})
                by_method.setdefault(found.run.method, set()).add(str(value))
    methods = list(dict.fromkeys(found.run.method for found in known))
    rows = [[key, *(" / ".join(sorted(by_method.get(method, {"-"}))) for method in methods)]
            for key, by_method in values.items()
            if len(set().union(*by_method.values())) > 1 or len(by_method) < len(methods)]
    some = f"of the first {len(details)} runs" if total > len(details) else "runs"
    note = (f"Keys that do not have one value in all {some}; where a method has several: a / b."
            if rows else f"All {some} have the same config, but for task and seed.")
    return {"note": note, "cells": [["Key", *methods], *rows]}


def _picture(figure: Figure, alt: str) -> Context:
    """Returns a figure as an image that scales; its text is paths, so it needs no font."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    return _image(file.getvalue(), "svg+xml", alt, math.ceil(figure.get_figwidth() * _PIXELS))


def _image(content: bytes, kind: str, alt: str, width: int | None = None) -> Context:
    return {"kind": kind, "data": base64.b64encode(content).decode("ascii"), "alt": alt,
            "width": width}


@dataclasses.dataclass(frozen=True)
class Details:
    """What a run's directory says of the run beside its curve.

    Attributes:
        run: the run.
        last: the last record of its metrics.
        record: its config.yaml; empty if it is missing or not ours.
        config: the config by dotted key; empty if not known.
    """

    run: Run
    last: dict[str, Any]
    record: dict[str, Any]
    config: dict[str, Any]

    @classmethod
    def read(cls, run: Run) -> Details:
        """Reads a run's directory."""
        try:
            record = read_yaml(run.folder / "config.yaml", of_run=True)
        except UserError:
            record = {}
        return cls(run, _last_record(run), record, _flat(record.get("config")))

    @property
    def seconds(self) -> float | None:
        """Seconds that the run worked in all its attempts; None if its metrics have no time."""
        return _seconds(self.last)

    def context(self) -> Context:
        """Returns the run's headline, facts and command."""
        run, record = self.run, self.record
        hours = "" if self.seconds is None else f", {duration(self.seconds)} hours"
        score = f"{short_score(float(run.y[-1]))} at {short_frames(float(run.x[-1]))} frames"
        versions = [f"{name} {version}" for name, version in
                    _mapping(record.get("versions")).items()]
        # A folder below the present one is named from there, because pages are passed on.
        here, folder = Path.cwd(), run.folder
        directory = folder.relative_to(here) if folder.is_relative_to(here) else folder
        return {
            "headline": f"{run.name}: {score}{hours}",
            "facts": [("Frames", f"{int(self.last.get('step', run.x[-1])):,}"),
                      ("Machine", self._machine()), ("Commit", str(record.get("commit") or "")),
                      ("Versions", ", ".join(versions)), ("Directory", str(directory))],
            "command": self._command()}

    def _machine(self) -> str:
        host, machine = str(self.record.get("host") or ""), _mapping(self.record.get("machine"))
        if not machine:
            return host
        words = [f"{machine.get('processor', '?')}, {machine.get('cores', '?')} cores"]
        memory, gpus = machine.get("memory"), machine.get("gpus")
        if isinstance(memory, int) and memory:
            words.append(f"{memory / 1e9:.0f} GB")
        words += map(str, gpus) if isinstance(gpus, list) else []
        return f"{', '.join(words)} ({host})"

    def _command(self) -> str:
        """Returns the command that makes such a run again; empty if its config is not known."""
        if not self.config:
            return ""
        agent, presets = str(self.record.get("agent") or DREAMER), self.record.get("presets")
        presets = list(map(str, presets)) if isinstance(presets, list) else []
        words = ["python", "-m", "dreamer.run"]
        if agent != DREAMER:
            words = ["python", "-m", "baselines.run", "--agent", agent]
        words += [f"--task={self.config.get('task', self.run.task)}",
                  f"--seed={self.config.get('seed', 0)}"]
        words += ["--configs", *presets] if presets else []
        try:
            given = load_config(*presets, task=str(self.config.get("task")), agent=agent).flat()
        except UserError:
            given = {}  # the presets are not there: name every key
        for key, value in self.config.items():
            own = key in _RUN_KEYS and not (key == "method" and value)
            if given.get(key) != value and not own:
                words.append(f"--{key}={str(value).lower() if isinstance(value, bool) else value}")
        return shlex.join(words)


def _last_record(run: Run) -> dict[str, Any]:
    return next(reversed(last_records(run.metrics)), {})


def _seconds(record: dict[str, Any]) -> float | None:
    seconds = record.get("wall_time")
    return float(seconds) if isinstance(seconds, int | float) else None


def _mapping(value: object) -> dict[str, Any]:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def _flat(config: object) -> dict[str, Any]:
    """Returns the scalars by dotted key; configs have groups of one level."""
    flat: dict[str, Any] = {}
    for key, value in _mapping(config).items():
        flat |= {f"{key}.{name}": leaf for name, leaf in _mapping(value).items()} or {key: value}
    return {key: leaf for key, leaf in flat.items() if isinstance(leaf, bool | int | float | str)}


if __name__ == "__main__":
    sys.exit(main())
