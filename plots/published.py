"""Published scores and curves from the CSV files in baselines/published/."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dreamer.errors import UserError

DIRECTORY = Path(__file__).resolve().parent.parent / "baselines" / "published"
_NEEDED = ("suite", "task", "method", "frames", "seeds", "source")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a file: a score, or one point of a curve (`std` is not None).

    `frames` counts environment frames, action repeats included; None where none are stated.
    """

    task: str
    method: str
    frames: int | None
    score: float
    std: float | None
    seeds: int | None
    source: str
    approximate: bool
    figure: str
    parameter: str
    value: float | None


@dataclasses.dataclass(frozen=True)
class PublishedCurve:
    """Arrays of equal length [n], frames ascending; `seeds` holds 0 where unknown."""

    frames: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    seeds: np.ndarray


@dataclasses.dataclass(frozen=True)
class Point:
    """A published score, the frames it belongs to, and whether seeds were missing by then."""

    score: float
    frames: int
    seeds: int | None
    approximate: bool = False


class Published:
    """Lookup by full task name (``dmc_walker_walk``) and method."""

    def __init__(self, rows: list[Row]):
        self.rows = rows
        self.methods = sorted({row.method for row in rows if not row.figure})
        self.figures = sorted({row.figure for row in rows if row.figure})
        self._scores: dict[tuple[str, str], list[Row]] = {}
        points: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            if not row.figure:
                target = self._scores if row.std is None else points
                target.setdefault((row.task, row.method), []).append(row)
        self._curves = {key: _curve(found) for key, found in points.items()}

    @classmethod
    def load(cls, directory: Path = DIRECTORY) -> Published:
        """Reads every CSV file of `directory`.

        Raises:
            UserError: no such folder, no file in it, or a file without our columns.
        """
        paths = sorted(Path(directory).glob("*.csv")) if Path(directory).is_dir() else []
        if not paths:
            raise UserError(f"No published figures in {directory}: expected a folder of CSV files "
                            "as described in baselines/published/README.md.")
        return cls([row for path in paths for row in _read(path)])

    def curve(self, task: str, method: str) -> PublishedCurve | None:
        """Returns the method's curve on that task, None if none was published."""
        return self._curves.get((task, method))

    def point(self, task: str, method: str, frames: float | None = None) -> Point | None:
        """Returns a score.

        With `frames`: the curve at these frames (linear between its points, and its last point
        for one spacing more), else the score published at exactly these frames. Without: the
        score with the most frames, be it in a curve or alone. None where there is none.
        """
        found = [_as_point(row) for row in self._scores.get((task, method), [])]
        curve = self._curves.get((task, method))
        if frames is not None:
            found = [point for point in found if point.frames == frames]
            return (curve and _interpolate(curve, frames)) or (found[0] if found else None)
        if curve is not None:
            found.insert(0, _curve_point(curve, len(curve.frames) - 1))
        return max(found, key=lambda point: point.frames, default=None)

    def ablation(self, figure: str) -> list[Row]:
        """Returns the readings of one of the paper's ablation figures (``fig4``, ...)."""
        return [row for row in self.rows if row.figure == figure]

    def tasks(self, method: str) -> set[str]:
        """Returns the tasks for which the method has a score or a curve."""
        return {row.task for row in self.rows if row.method == method and not row.figure}




def _as_point(row: Row) -> Point:
    return Point(row.score, row.frames or 0, row.seeds, row.approximate)


def _curve_point(curve: PublishedCurve, index: int) -> Point:
    seeds = int(curve.seeds[index]) or None
    return Point(float(curve.mean[index]), int(curve.frames[index]), seeds)


def _interpolate(curve: PublishedCurve, frames: float) -> Point | None:
    last = curve.frames[-1]
    spacing = np.diff(curve.frames).min() if len(curve.frames) > 1 else 0
    if not curve.frames[0] <= frames <= last + spacing:
        return None
    frames = min(frames, last)
    around = curve.seeds[np.abs(curve.frames - frames) < max(spacing, 1)]
    score = float(np.interp(frames, curve.frames, curve.mean))
    return Point(score, int(frames), int(around.min()) or None)


def _curve(rows: list[Row]) -> PublishedCurve:
    rows = sorted(rows, key=lambda row: row.frames or 0)
    return PublishedCurve(
        frames=np.array([row.frames or 0 for row in rows], np.int64),
        mean=np.array([row.score for row in rows], np.float64),
        std=np.array([row.std for row in rows], np.float64),
        seeds=np.array([row.seeds or 0 for row in rows], np.int64),
    )


def _read(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        missing = [name for name in _NEEDED if name not in columns]
        if missing or not ("score" in columns or {"mean", "std"} <= set(columns)):
            raise UserError(f"{path} is no file of published figures: it needs the columns "
                            f"{', '.join(_NEEDED)} and score or mean and std, and has "
                            f"{', '.join(columns) or 'none'}.")
        for number, line in enumerate(reader, start=2):
            try:
                yield _row(line)
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{path}, line {number}: {error}. See the columns' meaning in "
                                "baselines/published/README.md.") from error


def _row(line: dict[str, str]) -> Row:
    is_score = bool(line.get("score"))
    score = float(line["score"] if is_score else line["mean"])
    if not math.isfinite(score):
        raise ValueError(f"score is {score}")
    return Row(
        task=f"{line['suite']}_{line['task']}",
        method=line["method"],
        frames=int(float(line["frames"])) if line["frames"] else None,
        score=score,
        std=None if is_score else float(line["std"]),
        seeds=int(line["seeds"]) if line["seeds"] else None,
        source=line["source"],
        approximate=(line.get("approximate") or "").lower() == "true",
        figure=line.get("figure") or "",
        parameter=line.get("parameter") or "",
        value=float(line["value"]) if line.get("value") else None,
    )
