"""Long calls that Python cannot interrupt, such as XLA's compilation, made interruptible."""

from __future__ import annotations

import threading
from collections.abc import Callable

_NAME = "interruptible"
_INTERVAL = 0.2  # seconds between two chances for Python to run a signal's handler


def run_interruptibly(act: Callable[[], object]) -> None:
    """Runs `act` in a thread of its own and waits for it.

    If a signal's handler raises an exception during the wait, the wait ends and the thread runs
    on. An exception in `act` is raised here.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # any error belongs to the caller
            errors.append(error)

    thread = threading.Thread(target=run, name=_NAME, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_INTERVAL)
    if errors:
        raise errors[0]


def has_abandoned_thread() -> bool:
    """Whether a thread of `run_interruptibly` still runs, although nobody waits for it.

    The process must then end by `os._exit`, because an orderly exit would unload libraries that
    the thread uses.
    """
    return any(thread.name == _NAME for thread in threading.enumerate())
