"""One attempt at a trial, on whichever node Ray has chosen. Imports neither Ray nor TensorFlow."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import dreamer
from dreamer.errors import UserError
from dreamer.io.files import StorageError, make_folder, open_to_append
from dreamer.runs.lock import SILENCE, live_holder
from dreamer.runs.trust import refuse_irregular
from dreamer.sweeps import attempts, guard
from dreamer.sweeps.progress import last_words, read_progress

LOCK_WAIT = SILENCE + 120.0
"""Seconds to wait for an earlier attempt's process: its node may be dead, which only shows by its
silence."""
USAGE = 2  # exit status after a user's mistake, which no repetition mends


class TrialFailedError(Exception):
    """The run ended with an error that another attempt may not meet."""


class TrialRefusedError(Exception):
    """The run said that something is wrong with what it was asked to do."""


def attempt(
    path: str, words: Sequence[str], steps: int, cpus: float, cwd: str, environ: Mapping[str, str]
) -> str:
    """Starts a trial's run, or resumes it, and waits for its end.

    Args:
        path: the run's directory.
        words: what follows ``python -m``.
        steps: at which the run is finished.
        cpus: processors of the trial; TensorFlow gets as many threads.
        cwd: where the sweep was started, which relative paths in `words` count from.
        environ: variables for the process.

    Returns:
        "finished", or "found finished" if there was nothing left to do.

    Raises:
        TrialFailedError: another exit status than 0; another live process has the run; or its
            directory cannot be made.
        TrialRefusedError: exit status 2, or a link or a pipe in the run's directory.
        KeyboardInterrupt: the task was cancelled; the run has saved and exited.
    """
    _hear_cancellation()
    run = Path(path)
    try:
        make_folder(run)
        refuse_irregular(run)
    except StorageError as error:
        raise TrialFailedError(str(error)) from error
    except UserError as refused:
        raise TrialRefusedError(str(refused)) from refused
    wait_for_others(run / "lock")
    if read_progress(run).finished(steps):
        return "found finished"
    status = _execute(run, words, cpus, cwd, environ)
    if status == 0:
        return "finished"
    said = last_words(run / attempts.LOG) or "it printed nothing"
    kind = TrialRefusedError if status == USAGE else TrialFailedError
    raise kind(f"exit status {status}: {said}")


def _hear_cancellation() -> None:
    """Ray cancels a task by SIGINT's handler. Of what a script started in the background, as a Ray
    or a sweep may be, there is none: bash has SIGINT ignored there, and that is inherited.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_for_others(
    lock: Path, seconds: float = LOCK_WAIT, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Returns once no live process holds a run's lock.

    Raises:
        TrialFailedError: one still does after that many seconds.
    """
    deadline = time.monotonic() + seconds
    while holder := live_holder(lock):
        if time.monotonic() > deadline:
            raise TrialFailedError(f"another run works in {lock.parent}: {holder}")
        sleep(1.0)


def _execute(
    run: Path, words: Sequence[str], cpus: float, cwd: str, environ: Mapping[str, str]
) -> int:
    command = [sys.executable, "-m", guard.__name__, sys.executable, "-m", *words]
    with open(open_to_append(run / attempts.LOG), "ab") as log:
        log.write(f"\n--- {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(words)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            cwd=cwd if Path(cwd).is_dir() else run, env=_environ(cpus, environ),
        )  # fmt: skip
    attempts.record(run, "start", pid=process.pid)
    start = time.monotonic()
    try:
        # In pieces, since a cancelled task is told by an exception between two instructions.
        while process.poll() is None:
            time.sleep(0.2)
    finally:
        _end(process)
        seconds = round(time.monotonic() - start, 1)
        attempts.record(run, "end", status=process.returncode, seconds=seconds)
    return process.returncode


def _end(process: subprocess.Popen) -> None:
    """Lets the guard end the run, if it has not ended, and waits."""
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(guard.GRACE + 30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _environ(cpus: float, environ: Mapping[str, str]) -> dict[str, str]:
    """This worker's environment, the project's place, and a number of threads."""
    source = str(Path(dreamer.__file__).resolve().parent.parent)
    path = os.environ.get("PYTHONPATH")
    found = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{path}" if path else source}
    found.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, math.ceil(cpus))))
    return {**found, **environ}
