"""Processes: try a Python, say how a process ended, and end with the parent.

Ray's guards and the command lines import this, so it imports nothing large.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>
_ANSWER = "the code has run"
_TRY_TIMEOUT = 120.0  # seconds; a first import from a cold disk is slow


def try_python(code: str, variables: Mapping[str, str], python: str = sys.executable) -> str:
    """Runs a few lines of Python in a new process; returns "", or the problem in one line.

    `variables` are all environment variables of the process.
    """
    command = [python, "-P", "-c", f"{code}\nprint({_ANSWER!r})"]
    try:
        done = subprocess.run(
            command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=_TRY_TIMEOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no answer within {_TRY_TIMEOUT:.0f} s"
    except OSError as error:
        return str(error)
    if done.returncode:
        how = describe_status(done.returncode)
        return (done.stderr.strip().splitlines() or [how])[-1] if done.returncode > 0 else how
    # The exit status is not enough: /bin/true succeeds, too.
    return "" if done.stdout.splitlines()[-1:] == [_ANSWER] else "it does not run Python code"


def describe_status(status: int) -> str:
    """Returns "exit status 3" or "killed by SIGKILL" for the status that `subprocess` gives."""
    return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"


def end_with(process: int) -> None:
    """Makes this process end with the one that started it, even if this one hangs or is stopped.

    The kernel's signal SIGCONT wakes this process if it is stopped; a thread then sees that its
    parent has changed and kills the process group. SIGKILL as the kernel's signal would spare the
    processes that this one has started. It would also come too early, because the kernel sends it
    when the thread that started this process ends. `process` may have ended already.
    """
    parent = os.getppid()  # may be a script in between

    def watch() -> None:
        while os.getppid() == parent and os.path.exists(f"/proc/{process}"):
            time.sleep(1.0)
        end(1)

    request_signal_at_parents_end(signal.SIGCONT)
    threading.Thread(target=watch, daemon=True).start()


def request_signal_at_parents_end(number: int) -> None:
    """Asks the kernel (Linux) to send this process a signal when its parent ends."""
    if prctl := getattr(ctypes.CDLL(None), "prctl", None):
        prctl(_PR_SET_PDEATHSIG, number)


def end(status: int) -> None:
    """Ends this process at once, with its process group if it leads one."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(status)
