"""Checkpoints that are complete or absent, and verified before they are used.

A checkpoint is the folder ``<step, 12 digits>/`` with these files:

- ``arrays.npz``: named numeric arrays, uncompressed;
- ``state.json``: counters, running episodes and other small values;
- ``manifest.json``: the step, and the size and SHA-256 of the other two files; written last.

The folder is written under a temporary name, synced and renamed. The reader unpickles nothing,
follows no links, and trusts no size before it is compared with the file. A stranger's checkpoint
can therefore be refused, but can do no harm.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dreamer.errors import UserError
from dreamer.io.arrays import NUMBERS, ArchiveError, read_arrays, read_directory, write_arrays
from dreamer.io.files import (
    atomic_folder,
    discard,
    make_folder,
    open_to_read,
    remove_temporaries,
    storage_errors,
)

_NAME = re.compile(r"(\d{12,})(\.old)?")
_FORMAT = 1
_ARRAYS, _STATE, _MANIFEST = "arrays.npz", "state.json", "manifest.json"
_KINDS = f"{NUMBERS}c"  # NumPy would store a bfloat16 as void and lose its type
_MAX_MANIFEST = 1_000_000  # bytes; ours have about 300
_MAX_FILE = 1 << 36  # bytes of a file if the agent's size is unknown
_SLACK = 1 << 26  # bytes of a file beyond twice the size of the agent's arrays
_ATTEMPTS = 5  # to read a folder that another process keeps changing

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Checkpoint:
    """The verified content of a checkpoint, and its folder."""

    step: int
    arrays: dict[str, np.ndarray]
    state: dict[str, Any]
    path: Path


@dataclass(eq=False)
class Checkpoints:
    """The newest checkpoints of one run.

    Only one process may `save` into a folder at a time (`dreamer.runs.rundir` ensures this); any
    number may read meanwhile.
    """

    directory: Path  # the run's ``checkpoints/``; the first `save` makes it
    keep: int = 2  # number of sound checkpoints to keep, at least 1
    _damaged: set[Path] = field(default_factory=set, init=False)

    def save(self, step: int, arrays: Arrays, state: Mapping[str, Any]) -> Path:
        """Writes a checkpoint, removes the oldest ones, and returns its folder.

        Args:
            step: Environment frames; it names the folder. An earlier checkpoint of the same step
                is replaced.
            arrays: Arrays of numbers or booleans, of any shape, by name.
            state: Values for JSON (finite numbers, strings, lists, maps with strings as keys).

        Raises:
            StorageError: See `dreamer.io.files.atomic_write`; the older checkpoints stay.
            TypeError: An array holds something else than numbers.
            ValueError: A value of the state cannot be stored exactly.
        """
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        for name, array in arrays.items():
            if array.dtype.kind not in _KINDS:
                raise TypeError(f"array {name!r} has dtype {array.dtype}; expected numbers")
        text = json.dumps(dict(state), allow_nan=False).encode()
        path = self.directory / f"{step:012d}"
        needed = sum(array.nbytes + 256 for array in arrays.values()) + len(text) + 512
        make_folder(self.directory)
        with storage_errors(path, needed):
            remove_temporaries(self.directory)
            with atomic_folder(path, needed) as folder:
                _write(folder, step, arrays, text)
            self._damaged.discard(path)
            self._prune()
        return path

    def replace_all(self, step: int, arrays: Arrays, state: Mapping[str, Any]) -> None:
        """Writes a checkpoint as `save` does, and removes all others, newer ones too."""
        written = self.save(step, arrays, state)
        for path in self._found():
            if path != written:
                discard(path)

    def load_latest(self, like: Arrays | None = None) -> Checkpoint | None:
        """Returns the newest sound checkpoint, or None if there is no checkpoint at all.

        For each damaged newer one, a `UserWarning` names it, the damage, and the checkpoint used.
        Another process may save meanwhile. Files much larger than `like`, the arrays of the agent
        to load, are not read. Raises UserError if there are checkpoints, all of them damaged.
        """
        for _ in range(_ATTEMPTS):
            found, reasons, inodes = None, {}, self._found()
            for path in inodes:
                try:
                    found = _read(path, _max_bytes(like))
                    break
                except _DamagedError as error:
                    reasons[path] = str(error)
            if not reasons or self._found() == inodes:
                break  # nothing was removed or replaced by another process meanwhile
        self._damaged.update(reasons)
        if reasons and found is None:
            listed = "; ".join(f"{path} ({reason})" for path, reason in reasons.items())
            raise UserError(
                f"no checkpoint can be used: {listed}; bring one back from a copy, or move "
                f"{self.directory} away to learn anew from the collected episodes"
            )
        for path, reason in reasons.items():
            assert found is not None
            warnings.warn(
                f"checkpoint {path} is damaged ({reason}); using {found.path} instead", stacklevel=2
            )
        return found

    def newest(self) -> Path | None:
        """Returns the newest checkpoint not known to be damaged, or None; reads no file."""
        return next((path for path in self._found() if path not in self._damaged), None)

    def steps(self) -> dict[int, Path]:
        """Returns the checkpoints by step, the newest first; reads no file."""
        found: dict[int, Path] = {}
        for path in self._found():
            found.setdefault(int(path.name.partition(".")[0]), path)
        return found

    @staticmethod
    def load(path: str | os.PathLike[str], like: Arrays | None = None) -> Checkpoint:
        """Returns the checkpoint in the folder `path`; UserError if there is no sound one.

        `like` is that of `load_latest`.
        """
        check_name(path)
        try:
            return _read(Path(path).expanduser(), _max_bytes(like))
        except _DamagedError as error:
            raise UserError(f"checkpoint {path} is damaged ({error}); choose another") from error

    def _found(self) -> dict[Path, int]:
        """Returns all checkpoints, newest first; another inode means that one was replaced.

        Of two with the same step, the one that was being replaced (``.old``) comes last.
        """
        found = []
        for path in self.directory.iterdir() if self.directory.is_dir() else ():
            if name := _NAME.fullmatch(path.name):
                with contextlib.suppress(FileNotFoundError):  # another process has removed it
                    found.append((int(name[1]), name[2] is None, path, path.lstat().st_ino))
        return {path: inode for _, _, path, inode in sorted(found, reverse=True)}

    def _prune(self) -> None:
        """Removes all that are older than the newest `keep` sound ones."""
        sound = 0
        for path in self._found():
            if sound >= self.keep:
                discard(path)
                self._damaged.discard(path)
            sound += path not in self._damaged


def check_name(path: str | os.PathLike[str]) -> None:
    """Raises UserError if a path is not the folder of a checkpoint."""
    folder = Path(path).expanduser()
    if not folder.is_dir() or _step(folder) is None:
        raise UserError(
            f"{path} is no checkpoint; expected best, latest, a step, or a folder like "
            "runs/dmc_walker_walk/dreamer/0/checkpoints/000000010000"
        )


class _DamagedError(Exception):
    """A checkpoint cannot be used; the message says why."""


def _step(folder: Path) -> int | None:
    name = _NAME.fullmatch(folder.absolute().name)
    return int(name[1]) if name else None


def _max_bytes(like: Arrays | None) -> int:
    """Returns a limit on the size of a file, high enough for another agent's checkpoint."""
    if like is None:
        return _MAX_FILE
    return 2 * sum(np.asarray(array).nbytes for array in like.values()) + _SLACK


def _write(folder: Path, step: int, arrays: Arrays, state: bytes) -> None:
    """Writes the files of a checkpoint into an empty folder, the manifest last."""
    with open(folder / _ARRAYS, "xb") as file:
        write_arrays(file, arrays)
    (folder / _STATE).write_bytes(state)
    files = {}
    for name in (_ARRAYS, _STATE):
        with open(folder / name, "rb") as file:
            files[name] = _fingerprint(file)
    manifest = {"format": _FORMAT, "step": int(step), "files": files}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1))


def _fingerprint(file: BinaryIO) -> dict[str, Any]:
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    return {"bytes": os.fstat(file.fileno()).st_size, "sha256": digest}


def _read(path: Path, max_bytes: int) -> Checkpoint:
    """Reads a checkpoint, whose files have at most `max_bytes`, and verifies all of it."""
    step = _step(path)
    if step is None or path.is_symlink() or not path.is_dir():
        raise _DamagedError("not a folder")
    with _opened(path / _MANIFEST, _MAX_MANIFEST) as file:
        manifest = _parse(_MANIFEST, file.read())
    for key, expected in {"format": _FORMAT, "step": step}.items():
        if manifest.get(key) != expected:
            found = manifest.get(key)
            raise _DamagedError(f"{_MANIFEST} says {key} {found!r}, expected {expected}")
    files = manifest.get("files")
    if not isinstance(files, dict) or set(files) != {_ARRAYS, _STATE}:
        raise _DamagedError(f"{_MANIFEST} does not list {_ARRAYS} and {_STATE}")
    with _opened(path / _ARRAYS, max_bytes) as file:
        _verify(_ARRAYS, file, files[_ARRAYS])
        arrays = _read_arrays(file.fileno())
    with _opened(path / _STATE, max_bytes) as file:
        _verify(_STATE, file, files[_STATE])
        state = _parse(_STATE, file.read())
    return Checkpoint(step, arrays, state, path)


@contextlib.contextmanager
def _opened(path: Path, max_bytes: int) -> Iterator[BinaryIO]:
    """Opens a regular file of limited size; all errors of the block become `_DamagedError`."""
    try:
        with open(open_to_read(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise _DamagedError(
                    f"{path.name} has {size:,} bytes, far more than this agent needs"
                )
            yield file
    except MemoryError:
        raise _DamagedError(f"{path.name} does not fit into memory") from None
    except (ArchiveError, OSError) as error:
        raise _DamagedError(f"{path.name}: {getattr(error, 'strerror', error)}") from error


def _verify(name: str, file: BinaryIO, expected: Any) -> None:
    """Compares a file's size and SHA-256 with its entry in the manifest."""
    found = _fingerprint(file)
    if found != expected:
        raise _DamagedError(
            f"{name} has {found['bytes']:,} bytes; {_MANIFEST} gives another size or SHA-256"
        )
    file.seek(0)


def _parse(name: str, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _DamagedError(f"{name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _DamagedError(f"{name} holds a {type(value).__name__}, expected a map")
    return value


def _read_arrays(fd: int) -> dict[str, np.ndarray]:
    # Uncompressed arrays take no more memory than the file is large, which is limited already.
    stored = read_directory(fd, _KINDS, max_unpacked=_MAX_FILE)
    if compressed := [name for name, array in stored.items() if not array.sliceable]:
        raise _DamagedError(f"{_ARRAYS}: {compressed[0]} is compressed, which ours never are")
    return dict(zip(stored, read_arrays(fd, stored.values()), strict=True))
