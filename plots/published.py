"""Published scores and curves from the CSV files in baselines/published/."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dreamer.errors import UserError

_DIRECTORY = Path(__file__).resolve().parent.parent / "baselines" / "published"
_NEEDED = ("suite", "task", "method", "frames", "seeds", "source")


class Row(NamedTuple):
    """One line of a file: a score, or a point of a curve (`std` is not None).

    `frames` are environment frames, action repeats included; None where the source names none.
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


class PublishedCurve(NamedTuple):
    """Arrays float64 [n], frames ascending; `seeds` is 0 where unknown."""

    frames: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    seeds: np.ndarray

    def at(self, frames: float) -> Point | None:
        """Returns the interpolated score; the last point also holds for one spacing more."""
        last = self.frames[-1]
        spacing = np.diff(self.frames).min() if len(self.frames) > 1 else 0
        if not self.frames[0] <= frames <= last + spacing:
            return None
        frames = min(frames, last)
        seeds = self.seeds[np.abs(self.frames - frames) < max(spacing, 1)].min()
        return Point(float(np.interp(frames, self.frames, self.mean)), int(frames),
                     int(seeds) or None)


class Point(NamedTuple):
    """A published score, its frames (0 if unknown) and its number of seeds (None if unknown)."""

    score: float
    frames: int
    seeds: int | None
    approximate: bool = False


class Published:
    """Published results, from all CSV files of `directory` ("" is baselines/published).

    `curves` is by full task name (``dmc_walker_walk``) and method.

    Raises:
        UserError: the folder is absent, has no CSV file, or a file has other columns.
    """

    def __init__(self, directory: str | Path = ""):
        directory = Path(directory or _DIRECTORY)
        paths = sorted(directory.glob("*.csv"))
        if not paths:
            raise UserError(f"No published figures in {directory}: expected a folder of CSV files "
                            "as described in baselines/published/README.md.")
        self.rows = [row for path in paths for row in _read(path)]
        results = [row for row in self.rows if not row.figure]
        self.methods = sorted({row.method for row in results})
        self.figures = sorted({row.figure for row in self.rows if row.figure})
        self._scores: dict[tuple[str, str], list[Point]] = defaultdict(list)
        points: dict[tuple[str, str], list[tuple]] = defaultdict(list)
        for row in results:
            key, frames = (row.task, row.method), row.frames or 0
            if row.std is not None:
                points[key].append((frames, row.score, row.std, row.seeds or 0))
            else:
                self._scores[key].append(Point(row.score, frames, row.seeds, row.approximate))
        self.curves = {key: PublishedCurve(*np.array(sorted(found), np.float64).T)
                       for key, found in points.items()}

    def point(self, task: str, method: str, frames: float | None = None) -> Point | None:
        """Returns a score, None if there is none.

        With `frames`: the curve at these frames, or else the score published at exactly these
        frames. Without: the score with the most frames, from a curve or a single one.
        """
        found = self._scores.get((task, method), [])
        curve = self.curves.get((task, method))
        read = curve and curve.at(curve.frames[-1] if frames is None else frames)
        if frames is not None:
            return read or next((point for point in found if point.frames == frames), None)
        return max([read, *found] if read else found, key=lambda point: point.frames, default=None)

    def ablation(self, figure: str) -> list[Row]:
        """Returns the scores read off one of the paper's ablation figures (``fig4``, ...)."""
        return [row for row in self.rows if row.figure == figure]


def _read(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = set(reader.fieldnames or [])
        if not columns >= {*_NEEDED, *(["score"] if "score" in columns else ["mean", "std"])}:
            raise UserError(f"{path} is no file of published figures: it needs the columns "
                            f"{', '.join(_NEEDED)} and score or mean and std, and has "
                            f"{', '.join(reader.fieldnames or ['none'])}.")
        for number, line in enumerate(reader, start=2):
            try:
                yield _row(line)
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{path}, line {number}: {error}. See the columns' meaning in "
                                "baselines/published/README.md.") from error


def _row(line: dict[str, str]) -> Row:
    score = float(line.get("score") or line["mean"])
    if not math.isfinite(score):
        raise ValueError(f"score is {score}")
    return Row(
        task=f"{line['suite']}_{line['task']}",
        method=line["method"],
        frames=int(float(line["frames"])) if line["frames"] else None,
        score=score,
        std=None if line.get("score") else float(line["std"]),
        seeds=int(line["seeds"]) if line["seeds"] else None,
        source=line["source"],
        approximate=(line.get("approximate") or "").lower() == "true",
        figure=line.get("figure") or "",
        parameter=line.get("parameter") or "",
        value=float(line["value"]) if line.get("value") else None,
    )
