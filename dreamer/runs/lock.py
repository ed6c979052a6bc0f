"""One live run per run directory.

The lock is the file ``lock`` with the holder's pid, host and start time. Two things tell whether
the holder still lives. On one machine the kernel does: the holder keeps the file locked (flock),
and that ends with the process, however it dies. Between machines that share a disk nothing is
certain, so the holder touches the file every half minute, and one untouched for five minutes is
taken for dead. Ages are read off the file server's own clock. A holder that was only paused for so
long notices, at its next touch, that the record is not its own any more.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dreamer.errors import UserError
from dreamer.io.files import DiskFullError, open_to_read, storage_error, temporary_beside

HEARTBEAT = 30.0  # seconds between touches
SILENCE = 300.0  # seconds untouched after which a holder on another machine counts as dead
_RECORD = 4096  # bytes that a lock may take


class Lock:
    """Holds `path` for this process until `release` or the process's end.

    Attributes:
        taken_over: who held the lock before and died without releasing it, or "".
        lost: who has taken it over from this process in turn, or "".

    Raises:
        UserError: another live process holds it, or the file cannot be written.
        DiskFullError: there is no room for it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.lost = ""
        try:
            self._open()
        except OSError as error:
            met = storage_error(error, self.path, self.path, _RECORD)
            if isinstance(met, DiskFullError):
                raise met from error
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error
        self._released = threading.Event()
        threading.Thread(target=self._beat, name="lock heartbeat", daemon=True).start()

    def release(self) -> None:
        """Lets the next run have it. The file stays, empty: removing it would race with others."""
        if self._released.is_set():
            return
        self._released.set()
        # On a full disk or a vanished folder the closing below still frees the lock here.
        with contextlib.suppress(OSError):
            if not self._taker():
                os.ftruncate(self._file, 0)
        os.close(self._file)

    def _open(self) -> None:
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            self.taken_over = self._acquire()
        except BaseException:
            os.close(self._file)
            raise

    def _acquire(self) -> str:
        locked = self._flock()
        holder = _parse(os.pread(self._file, _RECORD, 0))
        if locked is False or (holder and _lives(holder, self._age)):
            raise UserError(
                f"another run works in {self.path.parent}: {describe(holder)}; wait for its end or "
                "stop it, or choose another --seed, --method or --logdir"
            )
        self._record = json.dumps(_this_process()).encode()
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, self._record, 0)
        os.fsync(self._file)
        return describe(holder) if holder else ""

    def _flock(self) -> bool | None:
        """True: locked; False: someone else on this machine has it; None: unknown here."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS):
                return None
            raise
        return True

    def _age(self) -> float:
        return _age(self.path, os.fstat(self._file).st_mtime)

    def _beat(self) -> None:
        while not self.lost and not self._released.wait(HEARTBEAT):
            with contextlib.suppress(OSError):
                self.lost = self._taker()
                if not self.lost:
                    os.utime(self.path)

    def _taker(self) -> str:
        """Who has put something else in the place of this process's record, in words; "": nobody.

        Raises:
            OSError: that cannot be told now.
        """
        content = os.pread(self._file, _RECORD, 0)
        if content == self._record:
            return ""
        holder = _parse(content)
        return describe(holder) if holder else "a run that has ended since"


def live_holder(path: str | os.PathLike[str]) -> str:
    """Who seems to hold the lock `path` now, in words; "" if no live process does.

    Takes nothing, so another may have it a moment later.
    """
    path = Path(path)
    try:
        descriptor = open_to_read(path)
    except OSError:
        return ""
    with open(descriptor, "rb") as file:
        holder, touched = _parse(file.read(_RECORD)), os.fstat(descriptor).st_mtime
    return describe(holder) if holder and _lives(holder, lambda: _age(path, touched)) else ""


def _lives(holder: dict[str, Any], age: Callable[[], float]) -> bool:
    """Whether the holder is a live process, as far as can be told from here."""
    this = _this_process()
    if holder["host"] != this["host"]:
        return age() < SILENCE
    if holder.get("boot") != this["boot"]:
        return False
    return _start_time(holder["pid"]) == holder.get("process_start") is not None


def _age(path: Path, touched: float) -> float:
    """Seconds since a lock was last touched, by the clock of the file server that stamped it."""
    probe = temporary_beside(path)
    try:
        probe.touch(exist_ok=False)  # which follows no link
        return probe.stat().st_mtime - touched
    finally:
        probe.unlink(missing_ok=True)


def describe(holder: dict[str, Any]) -> str:
    """Who holds a lock, in words."""
    if not holder:
        return "a process that has not said who it is yet"
    return f"process {holder['pid']} on {holder['host']}, since {holder.get('since')}"


def _parse(content: bytes) -> dict[str, Any]:
    """The holder's record; empty for a released lock or one whose writing was cut short."""
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    whole = isinstance(record, dict) and isinstance(record.get("host"), str)
    return record if whole and isinstance(record.get("pid"), int) else {}


def _this_process() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "process_start": _start_time(os.getpid()),
        "boot": _boot(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of process `pid`; None if none runs (or no /proc).

    One that has ended runs no more, though nobody has asked for its exit status yet (a zombie): in
    a container whose first process does not, that is for ever.

    Together with the pid it names a process for good: pids are used again, these pairs are not.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
