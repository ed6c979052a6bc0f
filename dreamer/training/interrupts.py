"""SIGINT, SIGTERM, SIGHUP: finish the step, save, exit; a second one ends the process at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SLOW = 10.0  # seconds after which a signal interrupts the wait for an environment


class StopRequested(Exception):  # noqa: N818  (a request, not an error)
    """Raised between two environment steps or updates after a signal asked the run to stop."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


class Interrupt:
    """Within its ``with`` block, the first SIGINT, SIGTERM or SIGHUP is only noted.

    It restores the earlier handlers, so that a second signal acts as usual. If SIGHUP (a closed
    terminal) is ignored, as under nohup, it stays ignored. Only the main thread gets signals; in
    any other thread the block does nothing.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._immediately = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        self._restore()

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._number is not None

    def check(self) -> None:
        """Raises StopRequested if a signal has come."""
        if self._number is not None:
            raise StopRequested(self._number)

    @contextlib.contextmanager
    def immediately(self) -> Iterator[None]:
        """Within this block, a signal raises StopRequested wherever the code is.

        For work that takes long and may be interrupted anywhere.
        """
        self.check()
        self._immediately = True
        try:
            yield
        finally:
            self._immediately = False

    def while_waiting(self, seconds: float) -> None:
        """Raises StopRequested if a signal has come and this wait has lasted long."""
        if seconds >= SLOW:
            self.check()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        self._restore()
        if self._immediately:
            self.check()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}
