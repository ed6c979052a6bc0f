"""Standard streams that fail: a closed pipe, a full disk under nohup or ``2>log``.

None of that is the program's failure: it must neither end a run nor change an exit status.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import IO


class LastingStream:
    """A text stream that swallows what is written once its reader has gone away.

    Training must not end because the terminal, or the program it was piped into, did. What the
    stream's encoding cannot say is written as escapes.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._gone = False

    def write(self, text: str) -> int:
        if not self._gone:
            try:
                self._stream.write(_encodable(text, self.encoding))
            except (OSError, ValueError):
                self._leave()
        return len(text)

    def flush(self) -> None:
        if not self._gone:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._leave()

    def isatty(self) -> bool:
        try:
            return self._stream.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    def _leave(self) -> None:
        # What sits in the stream's buffer would fail again when the interpreter flushes it on
        # exit, and turn the exit status into 120; so the buffer gets somewhere to go.
        self._gone = True
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def standard_output() -> LastingStream:
    """The standard output; nowhere where it is closed (``>&-``)."""
    return LastingStream(sys.stdout or open(os.devnull, "w"))  # noqa: SIM115


def say(text: str) -> None:
    """Writes a line to the standard output, or nowhere if that fails; either way the interpreter's
    own flush on exit has nothing left to fail at."""
    _say(sys.stdout, text)


def warn(text: str) -> None:
    """The same to the standard error."""
    _say(sys.stderr, text)


def settle() -> None:
    """Writes out what the standard output still holds, or drops it if that fails."""
    if sys.stdout:
        LastingStream(sys.stdout).flush()


def _say(stream: IO[str] | None, text: str) -> None:
    if stream is not None:  # as where the shell closed it
        lasting = LastingStream(stream)
        lasting.write(text + "\n")
        lasting.flush()


def _encodable(text: str, encoding: str) -> str:
    return text.encode(encoding, "backslashreplace").decode(encoding)
