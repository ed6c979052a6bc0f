"""Runs of the main job as a user starts them, in processes of their own."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TASK = "dmc_cartpole_balance"
# float32 and deterministic: the same on every machine, and from run to run.
DEBUG = ("--task", TASK, "--configs", "debug", "--precision", "float32", "--deterministic", "true")
RUN = Path(TASK, "dreamer_debug", "0")
"""Where DEBUG's run lies below its logdir."""
LAB = ("--task", "dmlab_collect", *DEBUG[2:], "--envs.state", "true")
STANDIN = str(ROOT / "tests" / "envs" / "dmlab_standin")
LAB_RUN = Path("dmlab_collect", "dreamer_debug", "0")


@dataclass(frozen=True)
class DebugRuns:
    """The same training from the command line and, up to step 240, from a user's script.

    Attributes:
        path, other: Their directories; tests change copies only.
        output, errors: What the command line printed.
        script_output: What the script printed.
    """

    path: Path
    other: Path
    output: str
    errors: str
    script_output: str


def additions() -> list[str]:
    """The examples in Python and YAML of CONTRIBUTING.md, in its order."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return [dedent(b) for b in re.findall(r"^ *```(?:python|yaml)\n(.*?)^ *```", text, re.M | re.S)]


def start(module: str, *words: str | Path, **options: Any) -> subprocess.Popen[str]:
    """Starts `python -m <module> <words>` in the checkout."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": ROOT, **options}
    command = [sys.executable, "-m", module, *map(str, words)]
    return subprocess.Popen(command, text=True, **options)


def python(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs Python in the checkout to its end; `options` are run's, and variables to set for it."""
    variables = {key: options.pop(key) for key in list(options) if key.isupper()}
    options["env"] = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    options = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 1500, **options}
    return subprocess.run([sys.executable, *map(str, words)], **options)


def finish(process: subprocess.Popen[str], timeout: float = 1500) -> tuple[int, str, str]:
    """Waits for the end; exit status, output and errors."""
    output, errors = process.communicate(timeout=timeout)
    return process.returncode, output, errors


def train(*words: str | Path, **options: Any) -> str:
    """Runs a training to its end, and returns what it printed."""
    status, output, errors = finish(start("dreamer.run", *words, **options))
    assert status == 0, errors
    return output


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """Whole lines of a run's metrics.jsonl, none while there is no such file."""
    path = run / "metrics.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def wait_until(
    condition: Callable[[], bool], process: subprocess.Popen[str] | None = None, limit: float = 300
) -> None:
    """Returns once the condition holds; fails if the process ends before, or after the limit."""
    deadline = time.monotonic() + limit
    while not condition():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended before its time: {finish(process)}")
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.05)


def state_of(run: Path) -> dict[str, Any]:
    """The counters in a run's newest checkpoint."""
    newest = max((run / "checkpoints").iterdir())
    return json.loads((newest / "state.json").read_text(encoding="utf-8"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, not of those below it, by its name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def with_lab() -> dict[str, str]:
    """Environment variables with which a process and its workers find DeepMind Lab's stand-in."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), STANDIN])}


def children_of(process: subprocess.Popen[str]) -> list[int]:
    """Ids of the processes that a process has started."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in listed.split()]


def is_gone(pid: int) -> bool:
    """Whether a process has ended, even if nobody has asked for its status yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"
