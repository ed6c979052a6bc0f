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
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dreamer.errors import UserError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Of a device or its file system, whatever the file.
_FAILING = (
    errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.EREMOTEIO,
)  # fmt: skip
_BLOCK = 4096  # bytes that a folder takes, about


class StorageError(UserError):
    """A file could not be written. What stood under its name before is untouched."""

    status = 74  # EX_IOERR


class DiskFullError(StorageError):
    """There was no room for it.

    Attributes:
        passing: whether it may pass when space is freed: no limit on the size of files caused it.
    """

    def __init__(self, message: str, passing: bool = True) -> None:
        super().__init__(message)
        self.passing = passing


class IrregularFileError(OSError):
    """A link, a pipe or the like stands where a file belongs."""


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], needed: int | None = None) -> Iterator[BinaryIO]:
    """Yields a new binary file that takes the name `path` once the block has ended without error.

    Args:
        path: where the file belongs; its folder must exist. A file of that name is replaced.
        needed: bytes the whole file needs, where the caller knows, for the message on a full disk.

    Raises:
        DiskFullError: no room: disk, quota or the process's limit on file sizes.
        StorageError: the folder is missing or not writable, the disk has become read-only, or
            `path` is a folder.
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
        with contextlib.suppress(OSError):  # on a disk that is read-only now it stays
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
        size = _size(temporary)
        shutil.rmtree(temporary, ignore_errors=True)
        raise storage_error(error, path, temporary, needed or size) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _size(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return sum(entry.stat().st_size for entry in folder.iterdir())
    return 0


def _exchange(temporary: Path, path: Path) -> None:
    old = path.with_name(f"{path.name}.old")
    if path.exists():
        discard(old)
        os.rename(path, old)
    os.rename(temporary, path)
    sync_folder(path.parent)
    discard(old)


def discard(path: Path) -> None:
    """Removes what stands under that name, which is gone at once: nothing half-removed has it."""
    if os.path.lexists(path):
        doomed = temporary_beside(path)
        os.rename(path, doomed)
        remove(doomed)


def make_folder(path: Path, advice: str = "check the path and its permissions") -> None:
    """Makes a folder and those above it, unless they are there, and syncs the new names.

    Raises:
        DiskFullError: no room for it.
        StorageError: it cannot be made; `advice` ends the message.
    """
    try:
        for folder in [each for each in (*reversed(path.parents), path) if not each.is_dir()]:
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise storage_error(error, path, path, _BLOCK) from error
        reason = error.strerror or error
        raise StorageError(f"cannot make the folder {path}: {reason}; {advice}") from error


def open_to_read(path: str | os.PathLike[str]) -> int:
    """Opens a file of a run's directory and returns the descriptor.

    In a run from a stranger a link may lead anywhere, and a pipe or a device may have no end: none
    of them is read or waited for. The directory itself may be reached through links.

    Raises:
        IrregularFileError: it is no regular file.
        OSError: it cannot be opened.
    """
    return _open_regular(path, os.O_RDONLY)


def last_lines(path: Path, size: int = 1 << 17) -> list[bytes]:
    """Returns the lines at a file's end; the first may be cut; [] if it is unreadable.

    Args:
        path: A regular file, as `open_to_read` takes it.
        size: Bytes to read. Lines of metrics have about 1,000.
    """
    try:
        with open(open_to_read(path), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read(size).splitlines(keepends=True)
    except OSError:
        return []


def open_to_append(path: Path) -> int:
    """Opens a file at its end and returns the descriptor; makes the file if there is none.

    As `open_to_read`, it takes regular files only.

    Raises:
        StorageError: it cannot be opened for writing, or is no regular file.
    """
    flags = os.O_WRONLY | os.O_APPEND
    with storage_errors(path):
        try:
            return _open_regular(path, flags)
        except FileNotFoundError:
            descriptor = _open_regular(path, flags | os.O_CREAT)
        try:
            sync_folder(path.parent)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _open_regular(path: str | os.PathLike[str], flags: int) -> int:
    if os.path.islink(path):
        raise IrregularFileError(errno.ELOOP, "it is a link, which is not followed", str(path))
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe blocks on opening else
    try:
        descriptor = os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno != errno.ENXIO:  # that of pipes without a reader, and of sockets
            raise
        raise _irregular(path) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _irregular(path)
    return descriptor


def _irregular(path: str | os.PathLike[str]) -> IrregularFileError:
    return IrregularFileError(errno.EINVAL, "it is not a regular file", str(path))


def remove(path: Path) -> None:
    """Removes a file, a link or a whole folder; nothing happens if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> int:
    """Removes what killed processes left half-written directly in `folder`; returns how many.

    Only for the one process that may write there (see `dreamer.runs.rundir`).
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


@contextlib.contextmanager
def storage_errors(path: Path, needed: int = 0) -> Iterator[None]:
    """Raises what goes wrong with `path` in the block as `storage_error` says."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path, path, needed) from error


def storage_error(error: OSError, path: Path, temporary: Path, needed: int) -> Exception:
    """The error to raise for `error`, met while `path` was written by way of `temporary`.

    An `OSError` that has nothing to do with that file is returned as it is.
    """
    if error.errno in _NO_SPACE:
        return DiskFullError(_no_space(error, path, needed), error.errno != errno.EFBIG)
    if error.errno in _FAILING or _concerns(error, path, temporary):
        reason = error.strerror or error
        return StorageError(
            f"cannot write {path}: {reason}; check the disk, the folder and its permissions"
        )
    return error


def _concerns(error: OSError, path: Path, temporary: Path) -> bool:
    if not isinstance(error.filename, str):
        return False
    place = Path(error.filename)
    return place in (path, path.parent, temporary) or place.parent == temporary


def _no_space(error: OSError, path: Path, needed: int) -> str:
    if error.errno == errno.EFBIG:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        return (
            f"no room for {path}: it needs at least {needed:,} bytes and files may have {limit:,} "
            "here; raise the limit (ulimit -f) and run the same command again"
        )
    nearest = next(folder for folder in path.absolute().parents if os.path.isdir(folder))
    free = shutil.disk_usage(nearest).free
    return (
        f"no room for {path}: it needs at least {needed:,} bytes and {free:,} are free on that "
        "disk or quota; free some space and run the same command again"
    )
