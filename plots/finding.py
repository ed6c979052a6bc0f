"""Finds run directories in a tree and tells each one's task, method and seed from its place."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from dreamer.errors import UserError
from dreamer.io.yaml_files import read_yaml
from plots.names import task_name

METRICS = "metrics.jsonl"
_BEGUN = {"config.yaml", "attempts.jsonl"}
"""Files that a run's folder holds before its metrics."""
_SEED = re.compile(r"(?:seed[_=-]?)?(\d+)", re.IGNORECASE)
_FIELDS = re.compile(r"\{(task|method|seed)\}")


@dataclasses.dataclass(frozen=True)
class Place:
    """One run: where its metrics file is and what it is a run of."""

    path: Path
    task: str
    method: str
    seed: str


@dataclasses.dataclass(frozen=True)
class Found:
    """What lies below the folders.

    `runs` have metrics. `unknown` are metrics files whose place tells no task. `lost` are runs
    whose folder was made and holds no metrics: they ended before, or have only begun.
    """

    runs: list[Place]
    unknown: list[Path]
    lost: list[Place]


def find_runs(roots: Iterable[Path], layout: str | None = None) -> Found:
    """Returns the runs below `roots`.

    A run is a folder with a metrics.jsonl; a lost one has a config.yaml or attempts.jsonl that
    belongs to no run below it. Task, method and seed are read from the folder's
    path: by `layout` if given (``{method}/{task}/{seed}``, matched against the path's end), else
    the seed is the last part that is a number, the task the last part that names one, and the
    method what stands between or before them. ``<task>/<method>/<seed>`` (ours) and
    ``<method>/<task>/<seed>`` are both understood. Where the path does not tell, the run's
    config.yaml is asked.

    Raises:
        UserError: a folder that does not exist, a layout without its fields, or two runs that
            claim the same task, method and seed.
    """
    pattern = _layout_pattern(layout) if layout else None
    found: list[tuple[Place, str]] = []
    lost: list[tuple[Place, str]] = []
    unknown: list[Path] = []
    seen: set[Path] = set()
    for root in dict.fromkeys(Path(root).resolve() for root in roots):
        for folder, has_metrics in _run_folders(root):
            if folder in seen:  # one root lies in another
                continue
            seen.add(folder)
            place, before = _identify(folder, root, pattern)
            if place is not None:
                (found if has_metrics else lost).append((place, before))
            elif has_metrics:
                unknown.append(folder / METRICS)
    runs, begun = _without_clashes(found, _topmost(lost, unknown + [p.path for p, _ in found]))
    return Found(runs, unknown, begun)


def _topmost(lost: list[tuple[Place, str]], files: list[Path]) -> list[tuple[Place, str]]:
    """Returns the lost runs that lie in no other and have none of the metrics files below."""
    above = {parent for file in files for parent in file.parents}
    folders = {place.path.parent for place, _ in lost} - above
    return [(place, before) for place, before in lost
            if place.path.parent in folders and not folders & set(place.path.parent.parents)]


def _run_folders(root: Path) -> Iterator[tuple[Path, bool]]:
    """Yields the folders of runs, begun ones among them, and whether they hold metrics."""
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
        elif _BEGUN & set(files):
            yield Path(folder), False


def _identify(
    folder: Path, root: Path, pattern: re.Pattern[str] | None
) -> tuple[Place | None, str]:
    """Returns the run's place, and the path between the root and what told it."""
    inside = folder.relative_to(root).parts
    if pattern is not None:
        match = pattern.search(folder.as_posix())
        if not match:
            return None, ""
        task = task_name(match["task"]) or match["task"]
        return Place(folder / METRICS, task, match["method"], match["seed"]), ""
    return _from_parts(folder, len(inside)) or (_from_config(folder, inside), "")


def _from_parts(folder: Path, depth: int) -> tuple[Place, str] | None:
    """Looks at the path's last four parts and at all that lie below the root."""
    parts = folder.parts[-max(4, depth) :]
    below = len(parts) - depth
    seeds = [i for i, part in enumerate(parts) if _SEED.fullmatch(part)]
    tasks = [i for i, part in enumerate(parts) if task_name(part)]
    if not seeds or (not tasks and (len(parts) < 3 or depth < 3)):
        return None
    seed = seeds[-1]
    task = tasks[-1] if tasks else len(parts) - 3  # a task of a foreign name, in our layout
    if not tasks and seed != len(parts) - 1:
        return None
    between = parts[min(seed, task) + 1 : max(seed, task)]
    before = parts[below : max(below, min(seed, task))]
    after = parts[max(seed, task) + 1 :]
    method = between + after
    if not method:
        method, before = before[-1:], before[:-1]
    number = _SEED.fullmatch(parts[seed])
    assert number is not None
    place = Place(
        folder / METRICS,
        task_name(parts[task]) or parts[task],
        "/".join(method) or "unnamed",
        str(int(number[1])),
    )
    return place, "/".join(before)


def _from_config(folder: Path, inside: tuple[str, ...]) -> Place | None:
    try:
        record = read_yaml(folder / "config.yaml", of_run=True)
    except UserError:
        return None  # the caller reports the run as one that tells no task
    config = record.get("config", record)
    if not isinstance(config, dict) or not isinstance(config.get("task"), str):
        return None
    method = config.get("method") or "/".join(inside[:-1]) or "unnamed"
    task = task_name(config["task"]) or config["task"]
    seed = config.get("seed", inside[-1] if inside else folder.name)
    return Place(folder / METRICS, task, str(method), str(seed))


def _without_clashes(
    found: list[tuple[Place, str]], lost: list[tuple[Place, str]]
) -> tuple[list[Place], list[Place]]:
    """Tells runs of the same name apart by the folders above them (``sweep1/dreamer``)."""
    places, lost_places = [place for place, _ in found], [place for place, _ in lost]
    if _clash(places):
        places, lost_places = [
            [dataclasses.replace(place, method=f"{before}/{place.method}") if before else place
             for place, before in pairs]
            for pairs in (found, lost)
        ]
    clash = _clash(places)
    if clash:
        first, second = clash
        raise UserError(
            f"Two runs are both {first.task}, {first.method}, seed {first.seed}: "
            f"{first.path.parent} and {second.path.parent}. Move one away, or say with --layout "
            "how the folders are named, such as '{method}/{task}/{seed}'.")
    return places, lost_places


def _clash(places: list[Place]) -> tuple[Place, Place] | None:
    seen: dict[tuple[str, str, str], Place] = {}
    for place in places:
        key = (place.task, place.method, place.seed)
        if key in seen:
            return seen[key], place
        seen[key] = place
    return None


def _layout_pattern(layout: str) -> re.Pattern[str]:
    fields = _FIELDS.findall(layout)
    if sorted(fields) != ["method", "seed", "task"]:
        raise UserError(f"--layout {layout!r} must hold {{task}}, {{method}} and {{seed}} once "
                        "each, such as '{method}/{task}/{seed}' or '{task}-{method}-{seed}'.")
    parts = _FIELDS.split(layout.strip("/"))
    pieces = [
        f"(?P<{part}>[^/]+)" if i % 2 else re.escape(part) for i, part in enumerate(parts)
    ]
    return re.compile(r"(?:^|/)" + "".join(pieces) + "$")
