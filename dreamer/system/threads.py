"""Work that hears of no signal for minutes, such as XLA's, done so that it can be left."""

from __future__ import annotations

import threading
from collections.abc import Callable

_NAME = "leavable"
_TURN = 0.2  # seconds between two chances for Python to run a signal's handler


def run_leavably(act: Callable[[], object]) -> None:
    """Waits for `act`, done in a thread of its own; what a signal's handler raises meanwhile ends
    the waiting, not the thread. What `act` raises is raised here."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # whoever waits gets it, whatever it is
            errors.append(error)

    thread = threading.Thread(target=run, name=_NAME, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_TURN)
    if errors:
        raise errors[0]


def left_behind() -> bool:
    """Whether such a thread still runs. An orderly exit of the process would pull the libraries
    away below it."""
    return any(thread.name == _NAME for thread in threading.enumerate())
