"""The table of promises: each test says what it saw, and the end of the session prints it all.

A file test_<number>_<name>.py keeps the promise of that number, which its first line states. With
the environment variable PROMISES the table is printed, and written there as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class Row:
    """A promise's outcomes, counted, and what its tests have seen."""

    outcomes: Counter[str] = field(default_factory=Counter)
    figures: list[str] = field(default_factory=list)


_rows: dict[str, Row] = defaultdict(Row)


def _promise(item: pytest.Item) -> str:
    """The number and the first words of a test's module."""
    return (item.module.__doc__ or "").partition("\n")[0]  # type: ignore[attr-defined]


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Notes what a test has seen, for its promise's row of the table."""
    return _rows[_promise(request.node)].figures.append


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of a size such as 64k, or makes the one there as large."""
    path = tmp_path / "disk"

    def mount(size: str) -> Path:
        again = "remount," if path.is_dir() else ""
        path.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"{again}size={size}", "none", str(path)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("no right to mount a small file system here")
        return path

    yield mount
    subprocess.run(["umount", "--lazy", str(path)], capture_output=True, check=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if item.path.parent == Path(__file__).parent and (call.when == "call" or not report.passed):
        _rows[_promise(item)].outcomes[report.outcome] += 1
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not os.environ.get("PROMISES"):
        return
    terminalreporter.section("promises")
    table = []
    for promise, row in sorted(_rows.items(), key=lambda item: int(item[0].partition(".")[0])):
        terminalreporter.line(f"{promise}: {dict(row.outcomes)}")
        for text in row.figures:
            terminalreporter.line(f"      {text}")
        table.append({"promise": promise, "outcomes": row.outcomes, "figures": row.figures})
    Path(os.environ["PROMISES"]).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
