"""Streams metrics.jsonl files into binned learning curves, a few kilobytes a run.

A run's file is read line by line and each value goes into the bin of its step, so that neither
the number of lines nor the size of a tree decides the memory needed. Bin k holds the values
logged within half a bin width of k * width frames, as the published curves do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeGuard

import numpy as np

from dreamer.errors import UserError, suggest
from dreamer.io.files import open_to_read
from plots.finding import Place

ALIASES = {
    "eval/return": ("eval/return", "eval_return", "test/return", "test_return"),
    "train/return": ("train/return", "train_return", "episode/score"),
}
"""Our names of a metric, and what it is called in the files of older implementations."""

MAX_BINS = 2000
_LONGEST_LINE = 1 << 24
_TAIL = 1 << 16


@dataclasses.dataclass(frozen=True)
class Run:
    """One run's binned curve: `x` int64 [n] frames, ascending; `y` float64 [n] mean of each bin."""

    task: str
    method: str
    seed: str
    path: Path
    x: np.ndarray
    y: np.ndarray


@dataclasses.dataclass
class Counts:
    """What was met while reading."""

    files: int = 0
    size: int = 0
    damaged_lines: int = 0
    damaged_files: int = 0
    non_finite: int = 0
    rewound: int = 0
    without_metric: list[Path] = dataclasses.field(default_factory=list)

    def messages(self, metric: str) -> list[str]:
        """Returns what the user should know, as sentences."""
        said = []
        if self.damaged_lines:
            said.append(f"Skipped {self.damaged_lines} damaged line(s) in {self.damaged_files} "
                        "metrics file(s); a run that was killed leaves such a half-written line.")
        if self.non_finite:
            said.append(f"Skipped {self.non_finite} value(s) of {metric} that were not finite.")
        if self.rewound:
            said.append(f"In {self.rewound} run(s) the step went back (resumed from a "
                        "checkpoint); what was logged twice for a step is averaged.")
        if self.without_metric:
            first = self.without_metric[0].parent
            said.append(f"{len(self.without_metric)} run(s) have no value of {metric} and are "
                        f"left out, the first of them {first}.")
        return said


@contextlib.contextmanager
def open_metrics(path: Path) -> Iterator[BinaryIO]:
    """Opens a run's metrics.jsonl, which must be a regular file.

    Raises:
        UserError: it cannot be opened or read.
    """
    try:
        with open(open_to_read(path), "rb") as file:
            yield file
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error


def last_step(path: Path) -> float:
    """Returns the largest step among a file's last lines (0 if none), without reading the rest."""
    with open_metrics(path) as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        lines = file.read().split(b"\n")
    steps = [_step(record) for record in map(_record, lines) if record is not None]
    return max((step for step in steps if step is not None), default=0.0)


def auto_bin(places: Iterable[Place]) -> int:
    """Returns a bin width in frames: 1, 2 or 5 times 10^k, at most 50 to the longest run."""
    longest = max((last_step(place.path) for place in places), default=0.0)
    target = max(longest / 50, 1.0)
    power = 10.0 ** math.floor(math.log10(target))
    return int(next(m * power for m in (1, 2, 5, 10) if m * power >= target * 0.999))


def load_runs(
    places: list[Place],
    metric: str = "eval/return",
    bin_width: int | None = None,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> tuple[list[Run], Counts, int]:
    """Reads every run's curve of `metric`.

    Args:
        places: the runs.
        metric: a metric's name; our names stand for the older ones too (`ALIASES`).
        bin_width: frames; None chooses one by the longest run.
        on_bytes: called with the number of bytes read since the last call.

    Returns:
        The runs that have the metric, what was met, and the bin width.

    Raises:
        UserError: a file that cannot be read, too narrow bins, or a metric in none of the files.
    """
    width = bin_width or auto_bin(places)
    counts, names, runs = Counts(), set[str](), []
    for place in places:
        counts.files += 1
        bins = _read(place.path, metric, width, counts, names, on_bytes)
        if not bins:
            counts.without_metric.append(place.path)
            continue
        order = sorted(bins)
        x = np.array(order, np.int64) * width
        y = np.array([bins[k][0] / bins[k][1] for k in order], np.float64)
        runs.append(Run(place.task, place.method, place.seed, place.path, x, y))
    if not runs:
        raise UserError(_no_metric(metric, names, len(places)))
    return runs, counts, width


def _no_metric(metric: str, names: set[str], files: int) -> str:
    if not names:
        return (f"None of the {files} metrics file(s) holds a complete line with a step. Expected "
                'lines like {"step": 1000, "eval/return": 500.0}.')
    listed = ", ".join(sorted(names)[:30]) + (", ..." if len(names) > 30 else "")
    return (f"No run has values of the metric {metric!r}{suggest(metric, names)}. "
            f"The files hold: {listed}. Choose one with --metric.")


def _read(
    path: Path,
    metric: str,
    width: int,
    counts: Counts,
    names: set[str],
    on_bytes: Callable[[int], None],
) -> dict[int, list[float]]:
    """Returns {bin index: [sum, count]}; adds to `counts`, and to `names` until a value is met."""
    keys = ALIASES.get(metric, (metric,))
    bins: dict[int, list[float]] = {}
    damaged, highest, rewound = 0, -math.inf, False
    for line in _lines(path, counts, on_bytes):
        record = _record(line)
        step = None if record is None else _step(record)
        if record is None or step is None:
            damaged += 1
            continue
        if not bins and len(names) < 1000:
            names.update(record)
        value = next((record[key] for key in keys if key in record), None)
        if value is None:
            continue
        if not _is_number(value):
            counts.non_finite += 1
            continue
        rewound |= step < highest
        highest = max(highest, step)
        entry = bins.setdefault(math.floor(step / width + 0.5), [0.0, 0.0])
        entry[0] += value
        entry[1] += 1
        if len(bins) > MAX_BINS:
            raise UserError(f"Bins of {width} frames are too narrow: {path} fills more than "
                            f"{MAX_BINS} of them. Choose a larger --bin, or leave it out.")
    counts.damaged_lines += damaged
    counts.damaged_files += damaged > 0
    counts.rewound += rewound
    return bins


def _lines(path: Path, counts: Counts, on_bytes: Callable[[int], None]) -> Iterator[bytes]:
    """Yields the lines that are not empty, each at most 16 MiB, and reports the bytes read."""
    unreported = 0
    with open_metrics(path) as file:
        while line := file.readline(_LONGEST_LINE):
            unreported += len(line)
            if unreported > 1 << 20:
                on_bytes(unreported)
                counts.size += unreported
                unreported = 0
            if not line.isspace():
                yield line
    on_bytes(unreported)
    counts.size += unreported


def _record(line: bytes) -> dict[str, object] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _step(record: dict[str, object]) -> float | None:
    step = record.get("step")
    return step if _is_number(step) and 0 <= step < 1e15 else None


def _is_number(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -1e300 < value < 1e300  # false for NaN, and no overflow for huge integers
