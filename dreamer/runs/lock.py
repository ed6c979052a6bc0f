"""One live run per run directory.

The run holds an operating system's lock (flock) on the file ``lock``. The system frees the lock
when the process ends, no matter how. On a network file system, the server frees it some time
after the machine of the holder is gone. The file ``lock.json`` names the holder for messages;
no decision depends on it.

On a file system without flock, filelock uses the existence of ``lock`` instead, and removes it if
its maker has died on the same host. After a death on another host, the user must remove it, and
the message says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from dreamer.errors import UserError
from dreamer.io.files import DiskFullError, open_to_read, storage_error, write_file

_TIMEOUT = 0.3  # seconds; longer than `live_holder` of another process holds the lock
_NOTE_BYTES = 4096
_UNNAMED = "a process that has not written its name yet"


class Lock:
    """Holds the lock of the file `path` until `release` or the end of the process.

    Attributes:
        path: The file.
        taken_over: The previous holder, in words, if it died without releasing the lock; else "".

    Raises:
        UserError: Another live process holds the lock, or the file cannot be locked.
        DiskFullError: The disk is full.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            lock = _acquire(self.path, _TIMEOUT)
        except OSError as error:
            found = storage_error(error, self.path, _NOTE_BYTES)
            if isinstance(found, DiskFullError):
                raise found from error
            raise UserError(
                f"cannot lock {self.path}: {error.strerror or error}; choose a --logdir that you "
                "may write to, on a file system with locks"
            ) from error
        if lock is None:
            # With flock the file stays empty; a file that is the lock itself names its maker.
            soft = self.path.is_file() and self.path.stat().st_size
            raise UserError(
                f"another run works in {self.path.parent}: {_holder(self.path) or _UNNAMED}; "
                "wait for its end or stop it, or choose another --seed, --method or --logdir"
                + (f"; if its host is gone, remove {self.path}" if soft else "")
            )
        self._lock = lock
        self.taken_over = _holder(self.path)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        note = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        try:
            write_file(_note(self.path), json.dumps(note).encode())
        except BaseException:
            lock.release()
            raise

    def release(self) -> None:
        """Frees the lock. The file stays, because two processes could lock an old and a new one."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError):  # on a failing disk the lock is freed nevertheless
                _note(self.path).unlink(missing_ok=True)
            self._lock.release()


def live_holder(path: Path) -> str:
    """Returns which live process holds the lock `path`, in words; "" if none does.

    Another process may take the lock a moment later.
    """
    if path.is_file():
        with contextlib.suppress(OSError):
            lock = _acquire(path, 0)
            if lock is None:
                return _holder(path) or _UNNAMED
            lock.release()
    return ""


def _acquire(path: Path, seconds: float) -> BaseFileLock | None:
    """Returns the lock, held; None if another process still holds it after `seconds`."""
    lock = FileLock(path, timeout=seconds, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _holder(path: Path) -> str:
    """Returns what the note says about the holder; "" without a readable note."""
    try:
        with open(open_to_read(_note(path)), "rb") as file:
            note = json.loads(file.read(_NOTE_BYTES))
        return f"process {int(note['pid'])} on {note['host']}, since {note.get('since')}"
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ""
