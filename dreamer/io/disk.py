"""Full disks: wait for free space where that is safe, and warn before the disk is full."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from rich.filesize import decimal

from dreamer.io.files import DiskFullError

T = TypeVar("T")

_LONGEST_PAUSE = 30.0  # seconds between two attempts; the pause begins at 1 and doubles each time


class Stop(Protocol):
    """What ends the waiting: `dreamer.training.interrupts.Interrupt`."""

    @property
    def requested(self) -> bool:
        """Whether the run should stop."""

    def check(self) -> None:
        """Raises an exception if the run should stop."""


class RetryWhileDiskFull:
    """Calls a function again while it fails because the disk is full.

    Args:
        seconds: The longest time to wait; 0: do not wait.
        interrupt: Ends the waiting after a signal.
        say: Takes messages for the user.
    """

    def __init__(self, seconds: float, interrupt: Stop, say: Callable[[str], None]) -> None:
        self._seconds, self._interrupt, self._say = seconds, interrupt, say

    def __call__(self, act: Callable[[], T]) -> T:
        """Returns what `act` returns.

        Args:
            act: The function. It must change nothing when it raises DiskFullError.

        Raises:
            DiskFullError: The disk stayed full for the whole time, or a limit on the size of
                files is the reason, which waiting does not change.
            StopRequested: A signal came while this waited.
        """
        waited, pause = 0.0, 1.0
        while True:
            try:
                result = act()
            except DiskFullError as error:
                if not error.passing or waited >= self._seconds or self._interrupt.requested:
                    raise
                if not waited:
                    self._say(f"warning: {error} (the run waits up to {self._seconds:g} s for it)")
            else:
                if waited:
                    self._say(f"there is room again after {waited:.0f} s; the run continues")
                return result
            start = time.monotonic()
            while (passed := time.monotonic() - start) < min(pause, self._seconds - waited):
                self._interrupt.check()
                time.sleep(min(0.2, pause))
            waited, pause = waited + passed, min(2 * pause, _LONGEST_PAUSE)


def room_warning(folder: Path, needed: int, what: str) -> str:
    """Returns a warning if the disk of `folder` has fewer than `needed` bytes free, else ""."""
    free = shutil.disk_usage(folder).free
    if needed <= free:
        return ""
    return (
        f"warning: {what} will need about {decimal(needed)}, but only {decimal(free)} are free "
        f"on the disk of {folder}; free some space, or choose another --logdir or "
        "--replay.directory"
    )
