"""Disks that fill up: waiting for room where that is safe, and a warning beforehand."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from dreamer.io.files import DiskFullError

T = TypeVar("T")

_UNITS = ("bytes", "kB", "MB", "GB", "TB")
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between attempts, doubled from one to the other


class Interrupt(Protocol):
    """Says whether a signal has asked for a stop; `check` raises then."""

    @property
    def requested(self) -> bool: ...
    def check(self) -> None: ...


class Patience:
    """Repeats what failed for lack of room until there is some.

    Args:
        seconds: How long to wait at most; 0 for not at all.
        interrupt: Signals end the waiting.
        say: Takes messages for the user.
    """

    def __init__(self, seconds: float, interrupt: Interrupt, say: Callable[[str], None]) -> None:
        self._seconds, self._interrupt, self._say = seconds, interrupt, say

    def keep_trying(self, act: Callable[[], T]) -> T:
        """What `act` returns; it must change nothing where it raises DiskFullError.

        Raises:
            DiskFullError: there was no room for that long, or a limit on the size of files stands
                in the way, which no waiting mends.
            StopRequested: a signal came meanwhile.
        """
        waited, pause = 0.0, FIRST_PAUSE
        while True:
            try:
                done = act()
            except DiskFullError as error:
                if not error.passing or waited >= self._seconds or self._interrupt.requested:
                    raise
                if not waited:
                    self._say(f"warning: {error} (the run waits up to {self._seconds:g} s for it)")
                waited += self._sleep(min(pause, self._seconds - waited))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if waited:
                    self._say(f"there is room again after {waited:.0f} s; the run goes on")
                return done

    def _sleep(self, seconds: float) -> float:
        start = time.monotonic()
        while (passed := time.monotonic() - start) < seconds:
            self._interrupt.check()
            time.sleep(min(0.2, seconds - passed))
        return passed


def room_warning(folder: Path, needed: int, what: str) -> str:
    """A warning where fewer than `needed` bytes are free on the disk of `folder`, else ""."""
    free = shutil.disk_usage(folder).free
    if needed <= free:
        return ""
    return (
        f"warning: {what} will need about {size_text(needed)} and {size_text(free)} are free on "
        f"the disk of {folder}; free some space, or choose another --logdir or --replay.directory"
    )


def size_text(size: float) -> str:
    """Bytes in the unit a person would use."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:,.0f} {_UNITS[unit]}" if size >= 1000 else f"{size:.4g} {_UNITS[unit]}"
