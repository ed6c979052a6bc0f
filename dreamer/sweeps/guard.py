"""Runs a command that must not outlive whoever asked for it.

    python -m dreamer.sweeps.guard COMMAND WORD ...

A Ray worker may be killed at any time, and Ray kills its children then. The worker starts this
guard, holding the other end of the guard's standard input; the guard starts the command. When the
input ends, because the worker closed it or died, the command gets SIGTERM, upon which a run saves
and exits, and SIGKILL after a while. When the guard itself is killed, the kernel sends the SIGTERM.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

GRACE = 120.0  # seconds that a run has to save and exit
_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


def main(argv: Sequence[str]) -> int:
    """Runs the command to its end; returns its exit status, 128 + N after signal N."""
    # Ray blocks SIGINT in its workers, and a mask is inherited.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    libc = ctypes.CDLL(None, use_errno=True)
    guard = os.getpid()

    def end_with_guard() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != guard:
            os._exit(128 + signal.SIGTERM)

    # One thread so far, so that running Python between fork and exec is safe.
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
