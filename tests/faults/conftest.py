"""The table of promises: each test says what it saw, and the end of the session prints it all.

A file test_<number>_<name>.py keeps the promise of that number. With the environment variable
PROMISES the table is also written there, as JSON.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from promises import verdict

PROMISES = {
    1: "Kill -9 anywhere",
    2: "Exact resume",
    3: "Checkpoints complete or absent",
    4: "Damaged episode files",
    5: "Failing environments",
    6: "Losses and gradients not finite",
    7: "Full disk, no permission",
    8: "Memory and tracing",
    9: "Two runs in one directory",
    10: "Signals",
    11: "Security",
    12: "Long soak",
}
_FILE = re.compile(r"test_(\d+)_\w+\.py")
_figures: dict[int, list[str]] = defaultdict(list)
_outcomes: dict[int, list[str]] = defaultdict(list)


def _number(path: Path) -> int | None:
    match = _FILE.fullmatch(path.name)
    return int(match[1]) if match and path.parent == Path(__file__).parent else None


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Notes what a test has seen, for its promise's row of the table."""
    number = _number(request.path)
    assert number in PROMISES
    return _figures[number].append


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
    number = _number(item.path)
    if number and (report.when == "call" or report.outcome != "passed"):
        _outcomes[number].append(report.outcome)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not os.environ.get("PROMISES"):
        return
    rows = []
    for number in sorted(_outcomes):
        outcomes = _outcomes[number]
        rows.append({
            "number": number, "promise": PROMISES[number], "outcome": verdict(outcomes),
            "tests": len(outcomes), "figures": _figures[number],
        })  # fmt: skip
    terminalreporter.section("promises")
    for row in rows:
        terminalreporter.line(
            f"{row['number']:2}  {row['promise']:32} {row['outcome']:16} {row['tests']:3} tests"
        )
        for text in row["figures"]:
            terminalreporter.line(f"      {text}")
    Path(os.environ["PROMISES"]).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
