"""The table of promises: each test notes what it saw, and the session ends with the table.

A file test_<number>_<name>.py keeps the promise of that number, which its first line states. With
the environment variable PROMISES the table is printed, and written there as JSON.
"""

import json
import os
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fault_runs import Disk, Figure
from ordinary_user import mounted


@dataclass
class Row:
    """A promise's outcomes, counted, and what its tests have seen."""

    outcomes: Counter[str] = field(default_factory=Counter)
    figures: list[str] = field(default_factory=list)


_rows: dict[str, Row] = defaultdict(Row)


def _promise(item: pytest.Item) -> str:
    """The first line of a test's module, which states its promise."""
    return (item.module.__doc__ or "").partition("\n")[0]  # type: ignore[attr-defined]


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Notes what a test has seen, for its promise's row of the table."""
    return _rows[_promise(request.node)].figures.append


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    """Mounts a file system of a size such as 64k, or makes the one there as large."""
    disk = tmp_path / "disk"
    with ExitStack() as stack:

        def mount(size: str) -> Path:
            if disk.is_dir():
                subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
            else:
                disk.mkdir()
                stack.enter_context(mounted(disk, f"size={size}"))
            return disk

        yield mount


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
