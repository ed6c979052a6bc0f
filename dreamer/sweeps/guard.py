"""Runs a command that must not outlive the process that asked for it.

    python -m dreamer.sweeps.guard COMMAND WORD ...

A Ray worker may be killed at any time, and Ray then kills the worker's children. The worker
therefore starts this guard, and the guard starts the command. The worker holds the other end of
the guard's standard input. When the input ends, because the worker closed it or died, the guard
sends SIGTERM to the command, so that a run saves and exits, and SIGKILL after a while. If the guard
itself is killed, the kernel sends SIGTERM.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from dreamer.system.processes import request_signal_at_parents_end

GRACE = 120.0  # seconds for a run to save and exit


def main(argv: Sequence[str]) -> int:
    """Runs the command to its end; returns its exit status, or 128 + N after signal N."""
    # Ray blocks SIGINT in its workers, and children inherit the mask.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    guard = os.getpid()

    def end_with_guard() -> None:
        request_signal_at_parents_end(signal.SIGTERM)
        if os.getppid() != guard:
            os._exit(128 + signal.SIGTERM)

    # There is only one thread yet, so that Python code may run between fork and exec.
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, preexec_fn=end_with_guard)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: child.send_signal(number))
    threading.Thread(target=_end_with_input, args=(child,), daemon=True).start()
    status = child.wait()
    return status if status >= 0 else 128 - status


def _end_with_input(child: subprocess.Popen) -> None:
    while os.read(0, 4096):
        pass
    child.terminate()
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
