"""Checkpoints that are complete or absent, and verified before anything of them is used.

A checkpoint is the folder ``<step, 12 digits>/`` with

- ``arrays.npz``: named numeric arrays, uncompressed;
- ``state.json``: counters, random states and whatever else is small;
- ``manifest.json``: step, and size and SHA-256 of the other two; written last.

The folder is written under a temporary name, synced and renamed. Reading unpickles nothing, follows
no links and believes no size that the file itself does not bear out, so a checkpoint from a
stranger can be refused but can do no harm.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import struct
import tokenize
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.errors import UserError
from dreamer.io.files import (
    atomic_folder,
    discard,
    make_folder,
    open_to_read,
    remove_temporaries,
    storage_errors,
)

__all__ = ["Checkpoint", "Checkpoints"]

_NAME = re.compile(r"(\d{12,})(\.old)?")
_SLACK = 1 << 26  # bytes beyond what an agent's arrays take
_LISTINGS = 5  # of a folder that another process keeps changing


class Checkpoints:
    """The newest few checkpoints of one run.

    Only one process may `save` into a folder at a time (`dreamer.runs.rundir` sees to that); any
    number may read at the same time.

    Args:
        directory: the run's ``checkpoints/``; made by the first `save`.
        keep: how many sound ones to keep, at least 1.
    """

    def __init__(self, directory: str | os.PathLike[str], keep: int = 2) -> None:
        if keep < 1:
            raise UserError(f"checkpoint.keep is {keep}; at least 1 checkpoint must be kept")
        self.directory = Path(directory)
        self.keep = keep
        self._damaged: set[Path] = set()

    def save(self, step: int, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> Path:
        """Writes the checkpoint of `step` (environment frames) and removes the oldest ones.

        Args:
            step: names the folder; one that is there for the same step is replaced.
            arrays: name -> array of numbers or booleans, any shape.
            state: what JSON can hold (finite numbers, strings, lists, maps with strings as keys).

        Returns the checkpoint's folder.

        Raises:
            StorageError: see `dreamer.io.files.atomic_write`; the older checkpoints stay.
            TypeError, ValueError: something that cannot be stored exactly.
        """
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        for name, array in arrays.items():
            if array.dtype.kind not in KINDS:
                raise TypeError(f"array {name!r} has dtype {array.dtype}; expected numbers")
        text = json.dumps(dict(state), allow_nan=False).encode()
        path = self.directory / f"{step:012d}"
        needed = sum(array.nbytes + 256 for array in arrays.values()) + len(text) + 512
        make_folder(self.directory)
        with storage_errors(path, needed):
            remove_temporaries(self.directory)
            with atomic_folder(path, needed) as folder:
                write(folder, step, arrays, text)
            self._damaged.discard(path)
            self._prune()
        return path

    def load_latest(self, like: Mapping[str, np.ndarray] | None = None) -> Checkpoint | None:
        """The newest checkpoint that proves sound, or None where there is none at all.

        For a damaged newer one a `UserWarning` names it, what is wrong with it, and the one used.
        Another process may save meanwhile.

        Args:
            like: the arrays of the agent that it is for; files of far more bytes are not read.

        Raises:
            UserError: there are checkpoints, and all of them are damaged.
        """
        for _ in range(_LISTINGS):
            before = self._identities()
            found, reasons = self._find(_most(like))
            if not reasons or self._identities() == before:
                break  # what is missing was not removed or replaced since we looked
        self._damaged.update(reasons)
        listed = "; ".join(f"{path} ({reason})" for path, reason in reasons.items())
        if reasons and found is None:
            raise UserError(
                f"no checkpoint can be used: {listed}; bring one back from a copy, or move "
                f"{self.directory} away to learn anew from the collected episodes"
            )
        for damaged, reason in reasons.items():
            assert found is not None
            warnings.warn(
                f"checkpoint {damaged} is damaged ({reason}); using {found.path} instead",
                stacklevel=2,
            )
        return found

    def _find(self, most: int) -> tuple[Checkpoint | None, dict[Path, str]]:
        """The newest sound one, and what is wrong with each of those that are newer."""
        reasons: dict[Path, str] = {}
        for step, path in self._listed():
            try:
                return read(step, path, most), reasons
            except DamagedError as error:
                reasons[path] = str(error)
        return None, reasons

    def _identities(self) -> list[tuple[Path, int]]:
        """What stands there, such that another one of the same name differs."""
        found = []
        for _, path in self._listed():
            with contextlib.suppress(FileNotFoundError):
                found.append((path, path.lstat().st_ino))
        return found

    def newest(self) -> Path | None:
        """The newest checkpoint not known to be damaged, unread; None if there is none."""
        paths = [path for _, path in self._listed() if path not in self._damaged]
        return paths[0] if paths else None

    @staticmethod
    def load(
        path: str | os.PathLike[str], like: Mapping[str, np.ndarray] | None = None
    ) -> Checkpoint:
        """The checkpoint in the folder `path`; `like` as `load_latest` takes it.

        Raises:
            UserError: there is none, or it is damaged.
        """
        step = Checkpoints.step_of(path)
        try:
            return read(step, Path(path).expanduser(), _most(like))
        except DamagedError as error:
            raise UserError(f"checkpoint {path} is damaged ({error}); choose another") from error

    @staticmethod
    def step_of(path: str | os.PathLike[str]) -> int:
        """The step that a checkpoint's folder is named after.

        Raises:
            UserError: it is no checkpoint's folder.
        """
        folder = Path(path).expanduser()
        name = _NAME.fullmatch(folder.absolute().name)
        if name and folder.is_dir():
            return int(name[1])
        raise UserError(
            f"{path} is no checkpoint; expected a folder like "
            "runs/dmc_walker_walk/dreamer/0/checkpoints/000000010000"
        )

    def _listed(self) -> list[tuple[int, Path]]:
        """Steps and paths, newest first; of one step the one that was being replaced comes last."""
        if not self.directory.is_dir():
            return []
        names = [(_NAME.fullmatch(path.name), path) for path in self.directory.iterdir()]
        found = [(int(name[1]), name[2] is None, path) for name, path in names if name]
        return [(step, path) for step, _, path in sorted(found, reverse=True)]

    def _prune(self) -> None:
        """Removes what is older than the newest `keep` sound ones; damaged ones do not count."""
        sound = [path for _, path in self._listed() if path not in self._damaged]
        if len(sound) <= self.keep:
            return
        oldest = sound[self.keep - 1]
        paths = [path for _, path in self._listed()]
        for path in paths[paths.index(oldest) + 1 :]:
            discard(path)
            self._damaged.discard(path)


def _most(like: Mapping[str, np.ndarray] | None) -> int:
    """Bytes that a file of a checkpoint may have, such that one of another agent still has them."""
    return MOST if like is None else 2 * sum(np.asarray(a).nbytes for a in like.values()) + _SLACK


FORMAT = 1
ARRAYS, STATE, MANIFEST = "arrays.npz", "state.json", "manifest.json"
KINDS = "biufc"
"""NumPy's kinds of numbers; it would take a bfloat16 for void and lose its type."""
MOST = 1 << 40
"""Bytes of a file of which nothing better is known."""
_MANIFEST_LIMIT = 1_000_000  # bytes; ours have about 300
# What zipfile and NumPy raise on bytes that are not theirs.
_UNREADABLE = (
    *(zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError, OSError),
    *(OverflowError, TypeError, KeyError, IndexError, AttributeError, MemoryError, SyntaxError),
    *(tokenize.TokenError, struct.error),
)


class DamagedError(Exception):
    """Why a checkpoint is not used."""


@dataclass(frozen=True)
class Checkpoint:
    """What a verified checkpoint holds, and the folder it came from."""

    step: int
    arrays: dict[str, np.ndarray]
    state: dict[str, Any]
    path: Path


def write(folder: Path, step: int, arrays: Mapping[str, np.ndarray], state: bytes) -> None:
    """Writes the files of a checkpoint into an empty folder, the manifest last."""
    _write_arrays(folder / ARRAYS, arrays)
    (folder / STATE).write_bytes(state)
    files = {name: _fingerprint((folder / name).read_bytes()) for name in (ARRAYS, STATE)}
    manifest = {"format": FORMAT, "step": int(step), "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Like `numpy.savez`, but any name goes, and never a pickle."""
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _fingerprint(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def read(step: int, path: Path, most: int) -> Checkpoint:
    """Reads a checkpoint of which everything is verified before it is used.

    Args:
        step: what its folder's name says.
        path: the folder.
        most: bytes that a file of it may have.

    Raises:
        DamagedError: something is wrong with it.
    """
    if path.is_symlink() or not path.is_dir():
        raise DamagedError("not a folder")
    manifest = _parse(MANIFEST, _content(path / MANIFEST, _MANIFEST_LIMIT))
    if manifest.get("format") != FORMAT:
        raise DamagedError(f"{MANIFEST} says format {manifest.get('format')!r}, expected {FORMAT}")
    if manifest.get("step") != step:
        raise DamagedError(f"{MANIFEST} says step {manifest.get('step')!r}, its folder {step}")
    files = manifest.get("files")
    if not isinstance(files, dict) or set(files) != {ARRAYS, STATE}:
        raise DamagedError(f"{MANIFEST} does not list {ARRAYS} and {STATE}")
    contents = {name: _verified(path / name, files[name], most) for name in (ARRAYS, STATE)}
    state = _parse(STATE, contents[STATE])
    return Checkpoint(step, _parse_arrays(contents[ARRAYS]), state, path)


def _verified(path: Path, expected: Any, most: int) -> bytes:
    size = expected.get("bytes") if isinstance(expected, dict) else None
    if not isinstance(size, int):
        raise DamagedError(f"{MANIFEST} gives no size for {path.name}")
    if size > most:
        raise DamagedError(f"{path.name} has {size:,} bytes, far more than this agent needs")
    content = _content(path, size)
    if len(content) != size:
        raise DamagedError(f"{path.name} has {len(content):,} bytes, expected {size:,}")
    if _fingerprint(content) != expected:
        raise DamagedError(f"{path.name} does not have the SHA-256 that {MANIFEST} gives")
    return content


def _content(path: Path, limit: int) -> bytes:
    """The bytes of an ordinary file of at most `limit` of them: no link, pipe or device."""
    try:
        with open(open_to_read(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise DamagedError(f"{path.name} has {size:,} bytes, expected {limit:,}")
            return file.read()
    except MemoryError:
        raise DamagedError(f"{path.name} does not fit into memory") from None
    except OSError as error:
        raise DamagedError(f"{path.name}: {error.strerror}") from error


def _parse(name: str, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DamagedError(f"{name} holds a {type(value).__name__}, expected a map")
    return value


def _parse_arrays(content: bytes) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_sizes(archive.infolist(), len(content))
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name in arrays or name == info.filename:
                    raise DamagedError(f"{ARRAYS} has a member {info.filename!r} that is not ours")
                arrays[name] = _parse_array(archive, info)
    except _UNREADABLE as error:
        raise DamagedError(f"{ARRAYS}: {error}") from error
    return arrays


def _check_sizes(infos: list[zipfile.ZipInfo], there: int) -> None:
    """Refuses members that would take more memory than the `there` bytes of their archive.

    A stored member cannot swell on reading; but one may lie within another, and then all of
    them together can.
    """
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise DamagedError(f"{ARRAYS}: {info.filename} is compressed, which ours never are")
    size = sum(info.file_size for info in infos)
    if size > there:
        raise DamagedError(f"{ARRAYS}: its members claim {size:,} bytes of its {there:,}")


def _parse_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    # The shape in a header is held against the bytes that are really there before any memory is
    # asked for.
    raw = archive.read(info)
    member = io.BytesIO(raw)
    version = np.lib.format.read_magic(member)
    if version != (1, 0):
        raise DamagedError(f"{ARRAYS}: {info.filename} has version {version}, expected (1, 0)")
    shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    if dtype.kind not in KINDS:
        raise DamagedError(f"{ARRAYS}: {info.filename} has dtype {dtype}, expected numbers")
    size, there = dtype.itemsize, len(raw) - member.tell()
    for length in shape:
        size *= int(length)
    if size != there:
        raise DamagedError(f"{ARRAYS}: {info.filename} claims {size:,} bytes and has {there:,}")
    member.seek(0)
    return np.lib.format.read_array(member, allow_pickle=False)
