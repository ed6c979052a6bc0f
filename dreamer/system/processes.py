"""Processes that end when the one they work for does, however it ends and whatever they are at."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time

_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


def end_with(process: int) -> None:
    """From now on this process ends when that one does, though its code hangs or it is halted.

    The kernel's signal makes a halted process go on, so that the thread sees what has happened and
    ends what this one has started as well. SIGKILL would leave those, and would come too early:
    whenever the thread ends that started this process.

    Args:
        process: who started this one, directly or by a script in between that the user calls
            their Python; it may have ended already.
    """
    if prctl := getattr(ctypes.CDLL(None), "prctl", None):  # Linux has it
        prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)
    threading.Thread(target=_watch, args=(process, os.getppid()), daemon=True).start()


def end(status: int) -> None:
    """Ends this process at once and, as leader of its group, whatever it has started."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(status)


def _watch(process: int, parent: int) -> None:
    """`parent` is that process, or a script in between, or who has adopted this one."""
    while os.getppid() == parent and (parent == process or _lives(process)):
        time.sleep(1.0)
    end(1)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it does, as someone else's
        pass
    return True
