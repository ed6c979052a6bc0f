"""Files and folders that are complete or absent, even if the process is killed while it writes.

Everything is written under a temporary name in the same folder (hidden, ending in ``.tmp``),
synced to the disk and renamed. Then the folder is synced. After a loss of power the disk thus
holds either the old content or the new.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dreamer.errors import UserError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Errors of a device or its file system, which concern all of its files.
_FAILING = (errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.EREMOTEIO)
# Messages where a regular file is expected. ENXIO: a socket, or a pipe without a reader.
_NOT_REGULAR = {
    errno.ELOOP: "it is a link, which is not followed",
    errno.ENXIO: "it is not a regular file",
}
_FOLDER_BYTES = 4096  # approximate size of a new folder on the disk


class StorageError(UserError):
    """A file could not be written. The earlier file of that name is unchanged."""

    status = 74  # EX_IOERR


class DiskFullError(StorageError):
    """A file could not be written because the disk, a quota or a limit is full."""

    def __init__(self, message: str, passing: bool = True) -> None:
        super().__init__(message)
        self.passing = passing  # whether freeing space can help; not with a limit on file sizes


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], needed: int | None = None) -> Iterator[BinaryIO]:
    """Yields a new binary file, which gets the name `path` when the block ends without error.

    Its folder must exist; an earlier file is replaced. `needed` is the size of the whole file in
    bytes, if known, for the message about a full disk. After an error, also of the block itself,
    the temporary file is removed.

    Raises:
        DiskFullError: The disk, the quota or the process's limit on file sizes is full.
        StorageError: The folder is missing or not writable, the disk has become read-only, or
            `path` is a folder.
    """
    path = Path(path)
    temporary = _temporary_beside(path)
    with _cleaned_up(path, temporary, needed):
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)


def write_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a whole file; errors are those of `atomic_write`."""
    with atomic_write(path, len(content)) as file:
        file.write(content)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a JSON file for people and programs; raises ValueError if a number is not finite."""
    write_file(path, json.dumps(value, indent=1, allow_nan=False).encode() + b"\n")


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], needed: int | None = None) -> Iterator[Path]:
    """Yields a new folder, which gets the name `path` when the block ends without error.

    All files in the folder are synced first. An earlier folder of that name is ``<name>.old``
    during the exchange, and stays there if the process dies in that moment. Arguments and errors
    are those of `atomic_write`.
    """
    path = Path(path)
    temporary = _temporary_beside(path)
    with _cleaned_up(path, temporary, needed):
        temporary.mkdir()
        yield temporary
        for entry in temporary.rglob("*"):
            if entry.is_dir():
                _sync_folder(entry)
            else:
                with open(entry, "rb") as file:
                    os.fsync(file.fileno())
        _sync_folder(temporary)
        old = path.with_name(f"{path.name}.old")
        if path.exists():
            discard(old)
            os.rename(path, old)
        os.rename(temporary, path)
        _sync_folder(path.parent)
        discard(old)


@contextlib.contextmanager
def _cleaned_up(path: Path, temporary: Path, needed: int | None) -> Iterator[None]:
    """Removes what the block leaves under its temporary name, and converts its errors."""
    written = 0
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(OSError):  # a disk that is read-only now keeps the file
            parts = temporary.rglob("*") if temporary.is_dir() else [temporary]
            written = sum(part.stat().st_size for part in parts)
            _remove(temporary)
        if isinstance(error, OSError):
            raise storage_error(error, path, needed or written, temporary) from error
        raise


def make_folder(path: Path, advice: str = "check the path and its permissions") -> None:
    """Makes a folder and all missing folders above it, and syncs the new names.

    Raises StorageError, which ends in `advice`, or DiskFullError.
    """
    try:
        for folder in [each for each in (*reversed(path.parents), path) if not each.is_dir()]:
            folder.mkdir(exist_ok=True)
            _sync_folder(folder.parent)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise storage_error(error, path, _FOLDER_BYTES) from error
        reason = error.strerror or error
        raise StorageError(f"cannot make the folder {path}: {reason}; {advice}") from error


def check_writable_folder(folder: Path, advice: str) -> None:
    """Raises UserError, ending in `advice`, if a folder cannot be written to or made."""
    folder = folder.absolute()
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not os.path.isdir(nearest):
        raise UserError(f"cannot make {folder}: {nearest} is no folder; {advice}")
    if not _may_write_in(nearest):
        raise UserError(f"cannot write to {nearest}; {advice}")


def check_writable_file(path: Path, flag: str) -> None:
    """Raises UserError, which names `flag`, if a file cannot be written or its folder is absent."""
    if path.is_dir() or not _may_write_in(path.absolute().parent):
        raise UserError(
            f"{flag} cannot write {path}; expected a file in a folder that exists and is writable"
        )


def _may_write_in(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK, effective_ids=True)


def open_to_read(path: str | os.PathLike[str]) -> int:
    """Opens a file of a run's directory and returns the descriptor.

    A run may come from a stranger. A link in it may lead anywhere, and a pipe or a device may
    never end, so OSError is raised for them. The directory itself may be reached through links.
    """
    return _open_regular(path, os.O_RDONLY)


def last_lines(path: Path, size: int = 1 << 17) -> list[bytes]:
    """Returns the lines in a file's last `size` bytes, the first perhaps cut; [] if unreadable."""
    try:
        with open(open_to_read(path), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read(size).splitlines(keepends=True)
    except OSError:
        return []


def open_to_append(path: Path) -> int:
    """Opens a file at its end and returns the descriptor; makes the file if it does not exist.

    Like `open_to_read`, this accepts regular files only. Raises StorageError.
    """
    with storage_errors(path):
        descriptor = _open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        _sync_folder(path.parent)
        return descriptor


def _open_regular(path: str | os.PathLike[str], flags: int) -> int:
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # without NONBLOCK a pipe would block
    try:
        descriptor = os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno not in _NOT_REGULAR:
            raise
        raise OSError(error.errno, _NOT_REGULAR[error.errno], str(path)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ENXIO, _NOT_REGULAR[errno.ENXIO], str(path))
    return descriptor


def discard(path: Path) -> None:
    """Removes a file or folder under a temporary name, so that no half-removed one keeps `path`."""
    if os.path.lexists(path):
        doomed = _temporary_beside(path)
        os.rename(path, doomed)
        _remove(doomed)


def remove_temporaries(folder: Path) -> None:
    """Removes the temporary files and folders that killed processes left in `folder`.

    Only the one process that may write to the folder (see `dreamer.runs.rundir`) may call this.
    """
    for path in list(folder.glob(".*.tmp")):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _temporary_beside(path: Path) -> Path:
    """Returns a hidden, unique name in the same folder that `remove_temporaries` recognises."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def _sync_folder(folder: Path) -> None:
    """Makes the names in `folder` survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync folders, and offer nothing better.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def storage_errors(path: Path, needed: int = 0) -> Iterator[None]:
    """Converts the errors of `path` that the block raises, as `storage_error` does."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path, needed) from error


def storage_error(
    error: OSError, path: Path, needed: int = 0, temporary: Path | None = None
) -> Exception:
    """Returns the error to raise for `error`, which came while `path` was written.

    It is `error` itself if that concerns another file. `needed` is the size in bytes, for the
    message about a full disk; `temporary` is the name under which `path` was written.
    """
    if error.errno in _NO_SPACE:
        passing = error.errno != errno.EFBIG
        if passing:
            nearest = next(folder for folder in path.absolute().parents if os.path.isdir(folder))
            free = shutil.disk_usage(nearest).free
            room = f"{free:,} are free on that disk or quota; free some space"
        else:
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
            room = f"files may have {limit:,} here; raise the limit (ulimit -f)"
        text = f"no room for {path}: it needs at least {needed:,} bytes and {room}"
        return DiskFullError(f"{text} and run the same command again", passing)
    place = Path(error.filename) if isinstance(error.filename, str) else None
    ours = (path, path.parent, temporary or path)
    if error.errno in _FAILING or (place and (place in ours or place.parent == temporary)):
        reason = error.strerror or error
        return StorageError(
            f"cannot write {path}: {reason}; check the disk, the folder and its permissions"
        )
    return error


def path_text(path: str | os.PathLike[str]) -> str:
    """Returns a path as text for a message; bytes that are not UTF-8 become escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
