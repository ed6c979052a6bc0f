"""What may end a run early: a signal, or a disk that stays full.

SIGINT, SIGTERM, SIGHUP: finish the step, save, exit; a second one ends the process at once.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

from dreamer.io.files import DiskFullError

T = TypeVar("T")

SLOW = 10.0  # seconds after which a signal interrupts the wait for an environment
_LONGEST_PAUSE = 30.0  # seconds between two attempts; the pause begins at 1 and doubles each time


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

        Use it for work that takes long and may be interrupted anywhere.
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


@dataclass(frozen=True)
class RetryWhileDiskFull:
    """Calls a function again while it fails because the disk is full."""

    seconds: float  # the longest time to wait; 0: do not wait
    interrupt: Interrupt  # ends the waiting after a signal
    say: Callable[[str], None]  # takes messages for the user

    def __call__(self, act: Callable[[], T]) -> T:
        """Returns the result of `act`. An `act` that raises DiskFullError must change nothing.

        Raises StopRequested if a signal comes while this waits; and DiskFullError if the disk
        stays full, or a limit on the size of files is the reason, which waiting does not change.
        """
        waited, pause = 0.0, 1.0
        while True:
            try:
                result = act()
            except DiskFullError as error:
                if not error.passing or waited >= self.seconds or self.interrupt.requested:
                    raise
                if not waited:
                    self.say(f"warning: {error} (the run waits up to {self.seconds:g} s for room)")
            else:
                if waited:
                    self.say(f"there is room again after {waited:.0f} s; the run continues")
                return result
            start = time.monotonic()
            while (passed := time.monotonic() - start) < min(pause, self.seconds - waited):
                self.interrupt.check()
                time.sleep(min(0.2, pause))
            waited, pause = waited + passed, min(2 * pause, _LONGEST_PAUSE)
