"""One attempt at a trial, on the node that Ray has chosen, and a run's progress from its files.

attempts.jsonl in a run's directory records each attempt's start and end. output.log beside it
holds what the run printed, attempt by attempt. This module imports neither Ray nor TensorFlow.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dreamer
from dreamer.errors import UserError
from dreamer.io.files import StorageError, last_lines, make_folder, open_to_append
from dreamer.logs.metrics import last_records
from dreamer.runs.lock import live_holder
from dreamer.runs.rundir import refuse_irregular
from dreamer.sweeps import guard

ATTEMPTS = "attempts.jsonl"
LOG = "output.log"
#: Seconds to wait for the lock of an earlier attempt. If its node is dead, the file server frees
#: the lock after some time.
LOCK_WAIT = 420.0
USAGE_ERROR = 2  # exit status; another attempt would fail in the same way


class TrialFailedError(Exception):
    """The run ended with an error, but another attempt may succeed."""


class TrialRefusedError(Exception):
    """The run reported a usage error."""


@dataclass(frozen=True)
class Progress:
    """How far a run is. Steps are environment frames; -1 stands for none yet."""

    step: int = 0  # of the last metrics line
    eval_return: float | None = None  # of the newest evaluation
    evaluated: int = -1  # step of the newest evaluation
    saved: int = -1  # step of the newest checkpoint

    def finished(self, steps: int) -> bool:
        """Whether a run of `steps` steps is finished: evaluated and saved at its last step."""
        return min(self.saved, self.evaluated) >= steps


def read_progress(run: Path) -> Progress:
    """Reads the last lines of a run's metrics and the names of its checkpoints."""
    step, eval_return, evaluated = 0, None, -1
    for record in last_records(run / "metrics.jsonl"):
        step = record["step"]
        if isinstance(value := record.get("eval/return"), int | float):
            eval_return, evaluated = float(value), step
    folder = run / "checkpoints"
    names = os.listdir(folder) if folder.is_dir() else []
    saved = [int(name) for name in names if re.fullmatch(r"\d{12,}", name)]
    return Progress(step, eval_return, evaluated, max(saved, default=-1))


def run_trial(path: str, words: Sequence[str], steps: int, cpus: float, cwd: str) -> str:
    """Starts or resumes a trial's run, and waits for its end.

    Args:
        path: The run's directory.
        words: What follows ``python -m``.
        steps: The step at which the run is finished. If the run is finished already, the result
            is "found finished" instead of "finished".
        cpus: Processors of the trial; TensorFlow gets as many threads.
        cwd: Where the sweep was started; relative paths in `words` start there.

    Raises:
        TrialFailedError: The run failed; another live process holds its lock; or its directory
            cannot be made.
        TrialRefusedError: A usage error, or a link or a pipe in the run's directory.
        KeyboardInterrupt: The task was cancelled; the run has saved and exited.
    """
    # Ray cancels a task by SIGINT. Bash makes a script's background processes, and so their
    # children, ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run = Path(path)
    try:
        make_folder(run)
        refuse_irregular(run)
    except StorageError as error:
        raise TrialFailedError(str(error)) from error
    except UserError as refused:
        raise TrialRefusedError(str(refused)) from refused
    wait_for_lock(run / "lock")
    if read_progress(run).finished(steps):
        return "found finished"
    status = _execute(run, words, cpus, cwd)
    if status == 0:
        return "finished"
    lines = [line.decode("utf-8", "replace").strip() for line in last_lines(run / LOG)]
    output = next((line[:300] for line in reversed(lines) if line), "it printed nothing")
    kind = TrialRefusedError if status == USAGE_ERROR else TrialFailedError
    raise kind(f"exit status {status}: {output}")


def record_attempt(run: Path, event: str, **facts: Any) -> None:
    """Appends a line to attempts.jsonl: event ("start" or "end"), time, host, and `facts`."""
    line = {"event": event, "time": time.time(), "host": socket.gethostname(), **facts}
    with open(open_to_append(run / ATTEMPTS), "ab") as file:
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_attempts(run: Path, since: float = 0.0) -> list[dict[str, Any]]:
    """Returns the newest whole lines of a run's attempts.jsonl, from time `since` on."""
    found = []
    for line in last_lines(run / ATTEMPTS):
        with contextlib.suppress(ValueError, TypeError, KeyError):  # a torn line
            entry = json.loads(line)
            if entry["time"] >= since:
                found.append(entry)
    return found


def wait_for_lock(
    lock: Path, seconds: float = LOCK_WAIT, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Waits until no live process holds a run's lock; TrialFailedError after `seconds`."""
    deadline = time.monotonic() + seconds
    while holder := live_holder(lock):
        if time.monotonic() > deadline:
            raise TrialFailedError(f"another run works in {lock.parent}: {holder}")
        sleep(1.0)


def _execute(run: Path, words: Sequence[str], cpus: float, cwd: str) -> int:
    source = str(Path(dreamer.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
    threads = {"TF_NUM_INTRAOP_THREADS": str(math.ceil(cpus))}
    command = [sys.executable, "-m", guard.__name__, sys.executable, "-m", *words]
    with open(open_to_append(run / LOG), "ab") as log:
        log.write(f"\n--- {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(words)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            cwd=cwd if Path(cwd).is_dir() else run,
            env={**threads, **os.environ, "PYTHONPATH": path},
        )  # fmt: skip
    record_attempt(run, "start", pid=process.pid)
    start = time.monotonic()
    try:
        # Polls, because Ray cancels by an exception, which a blocking wait would hold up.
        while process.poll() is None:
            time.sleep(0.2)
    finally:
        assert process.stdin is not None
        process.stdin.close()  # tells the guard to end the run
        try:
            process.wait(guard.GRACE + 30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        seconds = round(time.monotonic() - start, 1)
        record_attempt(run, "end", status=process.returncode, seconds=seconds)
    return process.returncode
