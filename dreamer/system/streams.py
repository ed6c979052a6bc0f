"""Standard output and error that may fail: a closed pipe, or a full disk under ``2>log``.

Such a failure is not the program's. It neither ends a run nor changes the exit status.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import IO


class LastingStream:
    """A text stream that ignores all text after its first failure.

    Training must not end when its terminal closes, or the program that reads its pipe ends.
    Characters that the stream's encoding lacks are written as escapes.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._failed = False
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        escaped = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
        self._attempt(self._stream.write, escaped)
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def isatty(self) -> bool:
        try:
            return self._stream.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        return self._stream.fileno()

    def _attempt(self, act: Callable[..., object], *values: str) -> None:
        if self._failed:
            return
        try:
            act(*values)
        except (OSError, ValueError):
            # The interpreter flushes the stream's buffer on exit. If that failed, the exit status
            # would be 120, so the buffer's text goes to /dev/null.
            self._failed = True
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())


def standard_output() -> LastingStream:
    """Returns the standard output, or /dev/null if it is closed (``>&-``)."""
    return LastingStream(sys.stdout or open(os.devnull, "w"))  # noqa: SIM115


def say(text: str) -> None:
    """Writes a line to the standard output and flushes it; nothing happens if that fails."""
    _say(sys.stdout, text)


def warn(text: str) -> None:
    """Writes a line to the standard error and flushes it; nothing happens if that fails."""
    _say(sys.stderr, text)


def settle() -> None:
    """Flushes the standard output; its buffer is dropped if that fails."""
    _say(sys.stdout, "", end="")


def _say(stream: IO[str] | None, text: str, end: str = "\n") -> None:
    if stream is not None:  # None: the shell has closed it
        lasting = LastingStream(stream)
        lasting.write(text + end)
        lasting.flush()
