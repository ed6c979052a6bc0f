"""attempts.jsonl in a run's directory: every start of its process by a sweep, and how it ended."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from dreamer.io.files import open_to_append, open_to_read

FILE = "attempts.jsonl"
LOG = "output.log"
"""Beside it: what the process printed, one attempt after the other."""


def record(path: Path, event: str, **facts: Any) -> None:
    """Appends one line on an attempt: event ("start", "end"), time, host, and `facts`."""
    line = {"event": event, "time": time.time(), "host": socket.gethostname(), **facts}
    with open(open_to_append(path / FILE), "ab") as file:
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def attempts(path: Path, since: float = 0.0) -> list[dict[str, Any]]:
    """Returns the whole lines of a run's attempts.jsonl from time `since` on; torn ones are left
    out."""
    try:
        with open(open_to_read(path / FILE), "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("time"), float):
            found.append(entry)
    return [entry for entry in found if entry["time"] >= since]
