"""Files and folders that are complete or absent, whatever kills the process while it writes.

Everything is written under a temporary name in the same folder (hidden, ending in ``.tmp``),
synced to the disk and renamed, and then the folder itself is synced, so that a machine that loses
power keeps either the old content or the new.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dreamer.errors import UserError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFullError(UserError):
    """There was no room for a file. What stood under its name before is untouched.

    Attributes:
        passing: whether it may pass when space is freed: no limit on the size of files caused it.
    """

    status = 74  # EX_IOERR

    def __init__(self, message: str, passing: bool = True) -> None:
        super().__init__(message)
        self.passing = passing


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], needed: int | None = None) -> Iterator[BinaryIO]:
    """Yields a new binary file that takes the name `path` once the block has ended without error.

    Args:
        path: where the file belongs; its folder must exist. A file of that name is replaced.
        needed: bytes the whole file needs, where the caller knows, for the message on a full disk.

    Raises:
        DiskFullError: no room: disk, quota or the process's limit on file sizes.
        UserError: the folder is missing or not writable, or `path` is a folder.
        Whatever the block itself raises; the temporary file is gone then, too.
    """
    path = Path(path)
    temporary = temporary_beside(path)
    written = 0
    try:
        with open(temporary, "xb") as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
            finally:
                written = file.tell()
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error(error, path, temporary, needed or written) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], needed: int | None = None) -> Iterator[Path]:
    """Yields a new folder that takes the name `path` once the block has ended without error.

    All files in it are synced first. A folder that stands under that name is set aside as
    ``<name>.old`` for the moment of the exchange: a process that dies in that moment leaves it
    there, complete. Arguments and errors as for `atomic_write`.
    """
    path = Path(path)
    temporary = temporary_beside(path)
    try:
        temporary.mkdir()
        yield temporary
        for entry in temporary.iterdir():
            with open(entry, "rb") as file:
                os.fsync(file.fileno())
        sync_folder(temporary)
        _exchange(temporary, path)
    except OSError as error:
        size = sum(entry.stat().st_size for entry in temporary.glob("*"))
        shutil.rmtree(temporary, ignore_errors=True)
        raise storage_error(error, path, temporary, needed or size) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(temporary: Path, path: Path) -> None:
    old = path.with_name(f"{path.name}.old")
    if path.exists():
        remove(old)
        os.rename(path, old)
    os.rename(temporary, path)
    sync_folder(path.parent)
    remove(old)


def remove(path: Path) -> None:
    """Removes a file, a link or a whole folder; nothing happens if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> int:
    """Removes what killed processes left half-written directly in `folder`; returns how many.

    Only for the one process that may write there (see `dreamer.rundir`).
    """
    left = list(folder.glob(".*.tmp")) if folder.is_dir() else []
    for path in left:
        remove(path)
    return len(left)


def temporary_beside(path: Path) -> Path:
    """A name no one else uses, in the same folder, hidden and recognised as temporary."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` survive a loss of power, as fsync does for a file's content."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems know no fsync of folders; there is nothing better to do there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def storage_error(error: OSError, path: Path, temporary: Path, needed: int) -> Exception:
    """The error to raise for `error`, met while `path` was written by way of `temporary`.

    An `OSError` that has nothing to do with that file is returned as it is.
    """
    if error.errno in _NO_SPACE:
        return DiskFullError(_no_space(error, path, needed), error.errno != errno.EFBIG)
    if error.errno == errno.EIO or error.filename in (str(temporary), str(path)):
        reason = error.strerror or error
        return UserError(f"cannot write {path}: {reason}; check the folder and its permissions")
    return error


def _no_space(error: OSError, path: Path, needed: int) -> str:
    if error.errno == errno.EFBIG:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        return (
            f"no room for {path}: it needs at least {needed:,} bytes and files may have {limit:,} "
            "here; raise the limit (ulimit -f) and run the same command again"
        )
    free = shutil.disk_usage(path.parent).free
    return (
        f"no room for {path}: it needs at least {needed:,} bytes and {free:,} are free on that "
        "disk or quota; free some space and run the same command again"
    )
