"""Finds run directories, and reads their metrics into binned curves of a few kilobytes a run.

Each line's value goes into the bin of its step, so memory does not grow with the files. Bin k holds
the values logged within half a bin width of k * width frames, as in the published curves.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from dreamer.errors import UserError, suggest
from dreamer.io.files import last_lines, open_to_read
from dreamer.io.yaml_files import read_yaml
from plots.labels import listed, task_name

METRICS = "metrics.jsonl"
ALIASES = {
    "eval/return": ("eval/return", "eval_return", "test/return", "test_return"),
    "train/return": ("train/return", "train_return", "episode/score"),
}
"""Our names of metrics, each with its names in the files of older implementations."""
MAX_BINS = 2000

_BEFORE_METRICS = {"config.yaml", "attempts.jsonl"}  # a run writes them before its metrics
_SEED = re.compile(r"(?:seed[_=-]?)?(\d+)", re.IGNORECASE)
_LONGEST_LINE = 1 << 24


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run's directory, with the task, method and seed of the run.

    `above` is the path from the root of the search to the folders that name the run.
    """

    task: str
    method: str
    seed: str
    folder: Path
    above: str = dataclasses.field(default="", kw_only=True)

    @property
    def metrics(self) -> Path:
        """The run's metrics file."""
        return self.folder / METRICS

    @property
    def name(self) -> str:
        """``<task>/<method>/<seed>``."""
        return f"{self.task}/{self.method}/{self.seed}"

    @functools.cached_property
    def record(self) -> dict[str, Any]:
        """The content of the run's config.yaml; empty if it is missing or not ours."""
        return read_record(self.folder)

    @property
    def time_limit(self) -> int:
        """Frames after which the run's config cuts episodes; 0: the suite's limit, or unknown."""
        config = self.record.get("config")
        envs = config.get("envs") if isinstance(config, dict) else None
        limit = envs.get("time_limit") if isinstance(envs, dict) else 0
        return limit if isinstance(limit, int) else 0


@dataclasses.dataclass(frozen=True)
class Run(RunFolder):
    """A run with its bins: their frames x, ascending int64 [n], and means y, float64 [n]."""

    x: np.ndarray
    y: np.ndarray


class FoundRuns(NamedTuple):
    """All runs below some folders.

    Attributes:
        runs: those with metrics.
        unknown: directories with metrics whose path and config name no task.
        without_metrics: those without a metrics file, which died early or have just begun.
    """

    runs: list[RunFolder]
    unknown: list[Path]
    without_metrics: list[RunFolder]


def find_runs(roots: Iterable[Path]) -> FoundRuns:
    """Returns the runs below `roots`.

    A run is a directory with a metrics.jsonl. A run without metrics has only a config.yaml or an
    attempts.jsonl, and no run below it. The last folder that is a number is the seed, the last that
    is a task's name the task, and all between or before them the method: ``<task>/<method>/<seed>``
    or ``<method>/<task>/<seed>``. If the path does not name a task, the run's config.yaml does.

    Raises:
        UserError: a folder does not exist, or two runs have the same task, method and seed.
    """
    runs, without, unknown = list[RunFolder](), list[RunFolder](), list[Path]()
    places: dict[Path, tuple[Path, bool]] = {}
    for root in map(Path.resolve, roots):
        for folder, has_metrics in _run_folders(root):
            places.setdefault(folder, (root, has_metrics))  # one root may lie in another
    for folder, (root, has_metrics) in places.items():
        inside = folder.relative_to(root).parts
        if run := _from_path(folder, len(inside)) or _from_config(folder, inside):
            (runs if has_metrics else without).append(run)
        elif has_metrics:
            unknown.append(folder)
    # Keeps only the outermost of the runs without metrics, and only if no other run is below.
    folders = {run.folder for run in without}.difference(
        *(folder.parents for folder in [*unknown, *(run.folder for run in runs)]))
    without = [run for run in without
               if run.folder in folders and not folders & set(run.folder.parents)]
    if _clash(runs):  # as in two sweeps: sweep1/dreamer and sweep2/dreamer
        runs, without = ([dataclasses.replace(run, method=f"{run.above}/{run.method}")
                          if run.above else run for run in found] for found in (runs, without))
    if clash := _clash(runs):
        first, second = clash
        raise UserError(f"Two runs are both {first.task}, {first.method}, seed {first.seed}: "
                        f"{first.folder} and {second.folder}. Move one away.")
    return FoundRuns(runs, unknown, without)


def _run_folders(root: Path) -> Iterator[tuple[Path, bool]]:
    """Yields each directory that may be a run, and whether it has metrics."""
    if not root.is_dir():
        raise UserError(f"{root} is not a folder. --indir takes the folder that holds the runs, "
                        "such as runs/.")

    def refuse(error: OSError) -> None:
        raise UserError(f"Cannot read {error.filename}: {error.strerror}.")

    for folder, subfolders, files in os.walk(root, onerror=refuse):
        subfolders.sort()
        if METRICS in files:
            subfolders.clear()  # below a run lie its episodes, not other runs
            yield Path(folder), True
        elif _BEFORE_METRICS & set(files):
            yield Path(folder), False


def _from_path(folder: Path, depth: int) -> RunFolder | None:
    """Reads the last four folders of the path, and all folders below the root."""
    parts = folder.parts[-max(4, depth) :]
    seeds = [i for i, part in enumerate(parts) if _SEED.fullmatch(part)]
    tasks = [i for i, part in enumerate(parts) if task_name(part)]
    if not tasks and depth >= 3:
        tasks = [len(parts) - 3]  # a task of an unknown suite, in our layout
        seeds = [i for i in seeds if i == len(parts) - 1]
    if not seeds or not tasks:
        return None
    first, last = sorted((seeds[-1], tasks[-1]))
    above = parts[len(parts) - depth : first]
    method = parts[first + 1 : last] + parts[last + 1 :]
    if not method:
        method, above = above[-1:], above[:-1]
    seed = _SEED.sub(r"\1", parts[seeds[-1]])
    task = task_name(parts[tasks[-1]]) or parts[tasks[-1]]
    named = "/".join(method) or _method_of(read_record(folder)) or "unnamed"
    return RunFolder(task, named, str(int(seed)), folder, above="/".join(above))


def read_record(folder: Path) -> dict[str, Any]:
    """Returns the content of a run's config.yaml; empty if it is missing or not ours."""
    try:
        return read_yaml(folder / "config.yaml", of_run=True)
    except UserError:
        return {}


def _method_of(record: dict[str, Any]) -> str:
    """Returns the method that names the folder of such a run; "" if its config does not say."""
    config, presets = record.get("config"), record.get("presets")
    if isinstance(config, dict) and config.get("method"):
        return str(config["method"])
    if not isinstance(record.get("agent"), str) or not isinstance(presets, list):
        return ""
    return "_".join([record["agent"], *sorted(map(str, presets))])


def _from_config(folder: Path, inside: tuple[str, ...]) -> RunFolder | None:
    record = read_record(folder)
    config = record.get("config", record)
    if not isinstance(config, dict) or not isinstance(config.get("task"), str):
        return None  # the caller reports a run that names no task
    method = config.get("method") or "/".join(inside[:-1]) or _method_of(record) or "unnamed"
    task = task_name(config["task"]) or config["task"]
    seed = config.get("seed", inside[-1] if inside else folder.name)
    return RunFolder(task, str(method), str(seed), folder)


def _clash(runs: list[RunFolder]) -> tuple[RunFolder, RunFolder] | None:
    """Returns two runs of one name, None if there are none."""
    by_name: dict[str, RunFolder] = {}
    return next(((first, run) for run in runs
                 if (first := by_name.setdefault(run.name, run)) is not run), None)


@dataclasses.dataclass
class Problems:
    """What was skipped in the metrics files."""

    damaged_lines: int = 0
    non_finite: int = 0
    without_metric: list[RunFolder] = dataclasses.field(default_factory=list)

    def messages(self, metric: str) -> list[str]:
        """Returns a sentence for each kind of problem."""
        lacking = self.without_metric
        return [text for count, text in (
            (self.damaged_lines, f"Skipped {self.damaged_lines} damaged line(s); a run that was "
             "killed leaves such a half-written line."),
            (self.non_finite,
             f"Skipped {self.non_finite} value(s) of {metric} that were not finite."),
            (len(lacking), f"{len(lacking)} run(s) have no value of {metric} and are left out, the "
             f"first of them {lacking[0].folder if lacking else ''}."),
        ) if count]


def load_runs(
    folders: Iterable[RunFolder], metric: str, width: int
) -> tuple[list[Run], Problems]:
    """Returns the runs that have `metric`, in bins of `width` frames, and the problems met.

    Our names of metrics also find the older names in `ALIASES`.

    Raises:
        UserError: a file cannot be read, the bins are too narrow, or no file has the metric.
    """
    problems, names, runs = Problems(), set[str](), []
    for found in folders:
        bins = sorted(_read_bins(found.metrics, metric, width, problems, names).items())
        if bins:
            runs.append(Run(found.task, found.method, found.seed, found.folder,
                            np.array([k for k, _ in bins], np.int64) * width,
                            np.array([total / count for _, (total, count) in bins])))
        else:
            problems.without_metric.append(found)
    if not runs and not names:
        raise UserError(f"None of the {len(problems.without_metric)} metrics file(s) holds a "
                        'complete line with a step, such as {"step": 1000, "eval/return": 500.0}.')
    if not runs:
        raise UserError(f"No run has values of the metric {metric!r}{suggest(metric, names)}. "
                        f"The files hold: {listed(sorted(names), 30)}. Choose one with --metric.")
    return runs, problems


def auto_bin(folders: Iterable[RunFolder]) -> int:
    """Returns a bin width in frames: 1, 2 or 5 times 10^k, with at most 50 bins to a run."""
    ends = [record["step"] for found in folders for record in last_records(found.metrics)]
    target = max(max(ends, default=0.0) / 50, 1.0)
    power = 10.0 ** math.floor(math.log10(target))
    return int(next(m * power for m in (1, 2, 5, 10) if m * power >= target * 0.999))


def last_records(path: Path) -> list[dict[str, Any]]:
    """Returns the records at the end of a metrics file, each with a valid step."""
    return [record for line in last_lines(path) if (record := _record(line)) is not None]


def _read_bins(
    path: Path, metric: str, width: int, problems: Problems, names: set[str]
) -> dict[int, tuple[float, int]]:
    """Returns {bin index: (sum, count)}; adds to `problems`, and all keys to `names`."""
    keys = ALIASES.get(metric, (metric,))
    bins: dict[int, tuple[float, int]] = {}
    for line in _lines(path):
        if (record := _record(line)) is None:
            problems.damaged_lines += 1
            continue
        if not bins and len(names) < 1000:
            names.update(record)
        value = next((record[key] for key in keys if key in record), None)
        if not _is_number(value):
            problems.non_finite += value is not None
            continue
        index = math.floor(record["step"] / width + 0.5)
        total, count = bins.get(index, (0.0, 0))
        bins[index] = total + value, count + 1
        if len(bins) > MAX_BINS:
            raise UserError(f"Bins of {width} frames are too narrow: {path} fills more than "
                            f"{MAX_BINS} of them. Choose a larger --bin, or leave it out.")
    return bins


def _lines(path: Path) -> Iterator[bytes]:
    """Yields a regular file's lines that are not blank, each of at most 16 MiB."""
    try:
        with open(open_to_read(path), "rb") as file:
            while line := file.readline(_LONGEST_LINE):
                if not line.isspace():
                    yield line
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error


def _record(line: bytes) -> dict[str, Any] | None:
    """Returns the JSON object of a line if it has a valid step, else None."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = record.get("step") if isinstance(record, dict) else None
    return record if _is_number(step) and 0 <= step < 1e15 else None


def _is_number(value: object) -> TypeGuard[float]:
    # The bounds refuse NaN, infinities, and integers that are too large for a float.
    return (isinstance(value, int | float) and not isinstance(value, bool)
            and -1e300 < value < 1e300)
