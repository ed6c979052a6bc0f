"""Reads metrics.jsonl files into binned learning curves of a few kilobytes a run.

Each file is read line by line, and each value goes into the bin of its step. Memory therefore
depends neither on the number of lines nor on the number of files. Bin k holds the values logged
within half a bin width of k * width frames, as in the published curves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np

from dreamer.errors import UserError, suggest
from dreamer.io.files import open_to_read
from plots.finding import RunFolder
from plots.labels import listed

ALIASES = {
    "eval/return": ("eval/return", "eval_return", "test/return", "test_return"),
    "train/return": ("train/return", "train_return", "episode/score"),
}
"""Our names of metrics, each with its names in the files of older implementations."""

MAX_BINS = 2000
_LONGEST_LINE = 1 << 24
_TAIL = 1 << 16


@dataclasses.dataclass(frozen=True)
class Run(RunFolder):
    """A run with its binned curve.

    Attributes:
        x: frames of the bins, int64 [n], ascending.
        y: mean of each bin, float64 [n].
    """

    x: np.ndarray
    y: np.ndarray


@dataclasses.dataclass
class Problems:
    """What was skipped or unusual in the metrics files."""

    damaged_lines: int = 0
    damaged_files: int = 0
    non_finite: int = 0
    rewound: int = 0
    without_metric: list[RunFolder] = dataclasses.field(default_factory=list)

    def messages(self, metric: str) -> list[str]:
        """Returns a sentence for each kind of problem."""
        notes = []
        if self.damaged_lines:
            notes.append(f"Skipped {self.damaged_lines} damaged line(s) in {self.damaged_files} "
                         "metrics file(s); a run that was killed leaves such a half-written line.")
        if self.non_finite:
            notes.append(f"Skipped {self.non_finite} value(s) of {metric} that were not finite.")
        if self.rewound:
            notes.append(f"In {self.rewound} run(s) the step went back (resumed from a "
                         "checkpoint); values logged twice for a step are averaged.")
        if self.without_metric:
            notes.append(f"{len(self.without_metric)} run(s) have no value of {metric} and are "
                         f"left out, the first of them {self.without_metric[0].folder}.")
        return notes


def load_runs(
    folders: Sequence[RunFolder],
    metric: str = "eval/return",
    bin_width: int | None = None,
    progress: Callable[[Sequence[RunFolder]], Iterable[RunFolder]] = iter,
) -> tuple[list[Run], Problems, int]:
    """Reads the curve of `metric` of every run.

    Args:
        folders: the runs.
        metric: the metric's name; our names also find the older names in `ALIASES`.
        bin_width: in frames; None uses `auto_bin`.
        progress: yields its argument, and shows how far that has come.

    Returns:
        The runs that have the metric, the problems met, and the bin width.

    Raises:
        UserError: a file cannot be read, the bins are too narrow, or no file has the metric.
    """
    width = bin_width or auto_bin(folders)
    problems, names, runs = Problems(), set[str](), []
    for found in progress(folders):
        bins = _read_bins(found.metrics, metric, width, problems, names)
        if not bins:
            problems.without_metric.append(found)
            continue
        order = sorted(bins)
        y = [bins[k][0] / bins[k][1] for k in order]
        runs.append(Run(found.task, found.method, found.seed, found.folder,
                        np.array(order, np.int64) * width, np.array(y, np.float64)))
    if not runs and not names:
        raise UserError(
            f"None of the {len(folders)} metrics file(s) holds a complete line with a step. "
            'Expected lines like {"step": 1000, "eval/return": 500.0}.')
    if not runs:
        raise UserError(f"No run has values of the metric {metric!r}{suggest(metric, names)}. "
                        f"The files hold: {listed(sorted(names), 30)}. Choose one with --metric.")
    return runs, problems, width


def auto_bin(folders: Sequence[RunFolder]) -> int:
    """Returns a bin width in frames: 1, 2 or 5 times 10^k, with at most 50 bins to a run."""
    ends = [record["step"] for found in folders for record in last_records(found.metrics)]
    target = max(max(ends, default=0.0) / 50, 1.0)
    power = 10.0 ** math.floor(math.log10(target))
    return int(next(m * power for m in (1, 2, 5, 10) if m * power >= target * 0.999))


def last_records(path: Path) -> list[dict[str, Any]]:
    """Returns the records in the last 64 KiB of a metrics file, each with a valid step."""
    with _open_metrics(path) as file:
        file.seek(max(0, file.seek(0, 2) - _TAIL))
        records = map(_record, file.read(_TAIL).split(b"\n"))
    return [record for record in records if record is not None]


def _read_bins(
    path: Path, metric: str, width: int, problems: Problems, names: set[str]
) -> dict[int, list[float]]:
    """Returns {bin index: [sum, count]}; adds to `problems`, and all keys to `names`."""
    keys = ALIASES.get(metric, (metric,))
    bins: dict[int, list[float]] = {}
    damaged, highest, rewound = 0, -math.inf, False
    for line in _lines(path):
        record = _record(line)
        if record is None:
            damaged += 1
            continue
        if not bins and len(names) < 1000:
            names.update(record)
        value = next((record[key] for key in keys if key in record), None)
        if not _is_number(value):
            problems.non_finite += value is not None
            continue
        step = record["step"]
        rewound |= step < highest
        highest = max(highest, step)
        entry = bins.setdefault(math.floor(step / width + 0.5), [0.0, 0.0])
        entry[0] += value
        entry[1] += 1
        if len(bins) > MAX_BINS:
            raise UserError(f"Bins of {width} frames are too narrow: {path} fills more than "
                            f"{MAX_BINS} of them. Choose a larger --bin, or leave it out.")
    problems.damaged_lines += damaged
    problems.damaged_files += damaged > 0
    problems.rewound += rewound
    return bins


@contextlib.contextmanager
def _open_metrics(path: Path) -> Iterator[BinaryIO]:
    """Opens a run's metrics.jsonl, which must be a regular file."""
    try:
        with open(open_to_read(path), "rb") as file:
            yield file
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error


def _lines(path: Path) -> Iterator[bytes]:
    """Yields the lines that are not blank, each of at most 16 MiB."""
    with _open_metrics(path) as file:
        while line := file.readline(_LONGEST_LINE):
            if not line.isspace():
                yield line


def _record(line: bytes) -> dict[str, Any] | None:
    """Returns the JSON object of a line if it has a valid step, else None."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = record.get("step") if isinstance(record, dict) else None
    return record if _is_number(step) and 0 <= step < 1e15 else None


def _is_number(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -1e300 < value < 1e300  # false for NaN and for integers too large for a float
