"""Work in threads whose errors are raised in the caller."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

_NAME = "interruptible"
_INTERVAL = 0.2  # seconds between two chances for Python to run a signal's handler


def run_interruptibly(act: Callable[[], object]) -> None:
    """Runs `act`, which Python cannot interrupt (such as XLA's compilation), in a thread.

    If a signal's handler raises an exception during the wait, the wait ends and the thread runs
    on. An exception in `act` is raised here.
    """
    thread, errors = _start(act, _NAME)
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


class AbandonedError(Exception):
    """Raised in the background to end it: the foreground has failed, or was asked to stop."""


@contextlib.contextmanager
def in_background(work: Callable[[Callable[[], None]], object]) -> Iterator[None]:
    """Runs `work` in a thread while the ``with`` block runs; the block's end waits for it.

    An exception of `work` is raised at the end of the block; an error of the block takes
    precedence. `work` takes a function to call now and then, which raises AbandonedError once the
    block has failed.
    """
    failed = threading.Event()

    def check() -> None:
        if failed.is_set():
            raise AbandonedError

    thread, errors = _start(lambda: work(check), "background")
    try:
        yield
    except BaseException:
        failed.set()
        raise
    finally:
        thread.join()
    if errors:
        raise errors[0]


def _start(act: Callable[[], object], name: str) -> tuple[threading.Thread, list[BaseException]]:
    """Starts a thread; returns it and the list that the error of `act` is added to."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # any error belongs to the caller
            errors.append(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread, errors
