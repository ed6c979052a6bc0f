"""Makes `plots` importable, and writes run directories for its tests."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # plots/ is not installed

WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Returns a function that writes <tmp_path>/<place>/metrics.jsonl from (step, value) pairs."""

    def write(place: str, points: Mapping[int, float], key="eval/return", tail="") -> Path:
        folder = tmp_path / place
        folder.mkdir(parents=True)
        lines = [json.dumps({"step": step, key: value}) for step, value in points.items()]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n" + tail)
        return folder

    return write


@pytest.fixture(params=["link", "pipe"])
def make_irregular(
    request: pytest.FixtureRequest, tmp_path: Path, impatient: None
) -> Callable[[Path, str], None]:
    """Returns a function that puts a link to a file with that text, or a pipe, at a path."""

    def make(path: Path, text: str) -> None:
        if request.param == "pipe":
            os.mkfifo(path)
        else:
            (tmp_path / "private").write_text(text)
            path.symlink_to(tmp_path / "private")

    return make
