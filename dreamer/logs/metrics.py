"""The file metrics.jsonl of a run: one JSON object a line, in the order of steps."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamer.io.files import (
    atomic_write,
    last_lines,
    open_to_append,
    open_to_read,
    storage_error,
    storage_errors,
)


class MetricsFile:
    """Appends whole lines, and removes the lines that a resumed run will write again.

    Removed lines are moved to ``<name>.dropped``; nothing is deleted. Torn lines, which a killed
    process leaves, are moved there too, before anything is appended.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.torn = 0  # how many torn or unreadable lines were moved
        self._keep_until(None)
        self._file = open_to_append(self.path)

    def append(self, record: Mapping[str, Any]) -> None:
        """Appends one line, whole or not at all, and syncs it to the disk.

        Raises:
            DiskFullError: The disk is full; the file is as before.
            StorageError: The disk fails, or is read-only now.
            ValueError: A number is not finite, which JSON does not allow.
        """
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        before = os.fstat(self._file).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):  # on a disk that is read-only now, the line stays
                os.ftruncate(self._file, before)
            raise storage_error(error, self.path, len(line)) from error

    def rewind(self, step: int) -> None:
        """Removes the lines of later steps than `step`, which the resumed run writes again.

        Raises as `append`; the file is then as before, and open.
        """
        self._keep_until(step)
        before, self._file = self._file, open_to_append(self.path)
        os.close(before)

    def close(self) -> None:
        os.close(self._file)

    def _keep_until(self, step: int | None) -> None:
        """Removes unreadable lines, and those of later steps, by an atomic rewrite if needed."""
        if not os.path.lexists(self.path):
            return
        kept: list[bytes] = []
        removed: list[bytes] = []
        with storage_errors(self.path), open(open_to_read(self.path), "rb") as file:
            for line in file:
                record = parse_line(line)
                keep = record is not None and (step is None or record["step"] <= step)
                (kept if keep else removed).append(line.rstrip(b"\n") + b"\n")
                self.torn += record is None
        if removed:
            dropped = self.path.with_name(f"{self.path.name}.dropped")
            with atomic_write(self.path) as new, open(open_to_append(dropped), "ab") as aside:
                new.writelines(kept)
                aside.writelines(removed)
                aside.flush()  # before the rewritten file replaces the old one
                os.fsync(aside.fileno())


def last_records(path: Path) -> list[dict[str, Any]]:
    """Returns the newest records of a metrics file, oldest first; none if it cannot be read."""
    records = map(parse_line, last_lines(path))
    return [record for record in records if record is not None]


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Returns the record of a whole line of metrics.jsonl; None for a torn or foreign line."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None
