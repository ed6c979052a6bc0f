"""Finds run directories, and reads each run's task, method and seed from its path."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from dreamer.errors import UserError
from dreamer.io.yaml_files import read_yaml
from plots.labels import task_name

METRICS = "metrics.jsonl"
_BEFORE_METRICS = {"config.yaml", "attempts.jsonl"}  # a run writes them before its metrics
_SEED = re.compile(r"(?:seed[_=-]?)?(\d+)", re.IGNORECASE)
_FIELDS = re.compile(r"\{(task|method|seed)\}")


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


@dataclasses.dataclass(frozen=True)
class FoundRuns:
    """All runs below some folders.

    Attributes:
        runs: the runs with metrics.
        unknown: directories with metrics whose path and config name no task.
        without_metrics: runs without a metrics file, because they died early or have just begun.
    """

    runs: list[RunFolder]
    unknown: list[Path]
    without_metrics: list[RunFolder]


def find_runs(roots: Iterable[Path], layout: str | None = None) -> FoundRuns:
    """Returns the runs below `roots`.

    A run is a directory with a metrics.jsonl. A run without metrics has only a config.yaml or an
    attempts.jsonl, and no run below it. With `layout` (``{method}/{task}/{seed}``), the end of the
    path gives task, method and seed. Otherwise the seed is the last folder that is a number, the
    task the last folder that is a task's name, and the method all folders between or before them:
    ``<task>/<method>/<seed>`` (ours) and ``<method>/<task>/<seed>`` both work. If the path does
    not name a task, the run's config.yaml does.

    Raises:
        UserError: a folder does not exist, the layout lacks a field, or two runs have the same
            task, method and seed.
    """
    pattern = _layout_pattern(layout) if layout else None
    runs, without = list[RunFolder](), list[RunFolder]()
    unknown: list[Path] = []
    seen: set[Path] = set()
    for root in dict.fromkeys(Path(root).resolve() for root in roots):
        for folder, has_metrics in _run_folders(root):
            if folder in seen:  # one root lies in another
                continue
            seen.add(folder)
            run = _identify(folder, root, pattern)
            if run is not None:
                (runs if has_metrics else without).append(run)
            elif has_metrics:
                unknown.append(folder)
    without = _outermost(without, [*unknown, *(run.folder for run in runs)])
    if _clash(runs):  # as in two sweeps: sweep1/dreamer and sweep2/dreamer
        runs, without = _with_folders_above(runs), _with_folders_above(without)
    if clash := _clash(runs):
        first, second = clash
        raise UserError(
            f"Two runs are both {first.task}, {first.method}, seed {first.seed}: {first.folder} "
            f"and {second.folder}. Move one away, or say with --layout how the folders are named, "
            "such as '{method}/{task}/{seed}'.")
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


def _outermost(without: list[RunFolder], others: list[Path]) -> list[RunFolder]:
    """Returns the runs without metrics that lie in no other and have none of `others` below."""
    above_others = {parent for folder in others for parent in folder.parents}
    folders = {run.folder for run in without} - above_others
    return [run for run in without
            if run.folder in folders and not folders & set(run.folder.parents)]


def _identify(folder: Path, root: Path, pattern: re.Pattern[str] | None) -> RunFolder | None:
    inside = folder.relative_to(root).parts
    if pattern is None:
        return _from_path(folder, len(inside)) or _from_config(folder, inside)
    match = pattern.search(folder.as_posix())
    if not match:
        return None
    task = task_name(match["task"]) or match["task"]
    return RunFolder(task, match["method"], match["seed"], folder)


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
    return RunFolder(task, "/".join(method) or "unnamed", str(int(seed)), folder,
                     above="/".join(above))


def _from_config(folder: Path, inside: tuple[str, ...]) -> RunFolder | None:
    try:
        record = read_yaml(folder / "config.yaml", of_run=True)
    except UserError:
        return None  # the caller reports a run that names no task
    config = record.get("config", record)
    if not isinstance(config, dict) or not isinstance(config.get("task"), str):
        return None
    method = config.get("method") or "/".join(inside[:-1]) or "unnamed"
    task = task_name(config["task"]) or config["task"]
    seed = config.get("seed", inside[-1] if inside else folder.name)
    return RunFolder(task, str(method), str(seed), folder)


def _with_folders_above(runs: list[RunFolder]) -> list[RunFolder]:
    return [dataclasses.replace(run, method=f"{run.above}/{run.method}") if run.above else run
            for run in runs]


def _clash(runs: list[RunFolder]) -> tuple[RunFolder, RunFolder] | None:
    """Returns the first two runs of the same name, if any."""
    seen: dict[str, RunFolder] = {}
    for run in runs:
        if seen.setdefault(run.name, run) is not run:
            return seen[run.name], run
    return None


def _layout_pattern(layout: str) -> re.Pattern[str]:
    if sorted(_FIELDS.findall(layout)) != ["method", "seed", "task"]:
        raise UserError(f"--layout {layout!r} must hold {{task}}, {{method}} and {{seed}} once "
                        "each, such as '{method}/{task}/{seed}' or '{task}-{method}-{seed}'.")
    parts = _FIELDS.split(layout.strip("/"))
    pieces = [f"(?P<{part}>[^/]+)" if i % 2 else re.escape(part) for i, part in enumerate(parts)]
    return re.compile(r"(?:^|/)" + "".join(pieces) + "$")
