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

import hashlib
import io
import json
import os
import re
import stat
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
from dreamer.files import (
    atomic_folder,
    discard,
    make_folder,
    remove_temporaries,
    storage_errors,
)

FORMAT = 1
ARRAYS, STATE, MANIFEST = "arrays.npz", "state.json", "manifest.json"
_NAME = re.compile(r"(\d{12,})(\.old)?")
_KINDS = "biufc"  # NumPy's kinds of numbers; it would take a bfloat16 for void and lose its type
_MANIFEST_LIMIT = 1_000_000  # bytes; ours have about 300
# What zipfile and NumPy raise on bytes that are not theirs.
_UNREADABLE = (
    *(zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError, OSError),
    *(OverflowError, TypeError, KeyError, IndexError, AttributeError, MemoryError, SyntaxError),
    *(tokenize.TokenError, struct.error),
)


class _DamagedError(Exception):
    """Why a checkpoint is not used."""


@dataclass(frozen=True)
class Checkpoint:
    """What a verified checkpoint holds, and the folder it came from."""

    step: int
    arrays: dict[str, np.ndarray]
    state: dict[str, Any]
    path: Path


class Checkpoints:
    """The newest few checkpoints of one run.

    Only one process may `save` into a folder at a time (`dreamer.rundir` sees to that); any
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
            StorageError: see `dreamer.files.atomic_write`; the older checkpoints stay.
            TypeError, ValueError: something that cannot be stored exactly.
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
                _write_files(folder, step, arrays, text)
            self._damaged.discard(path)
            self._prune()
        return path

    def load_latest(self) -> Checkpoint | None:
        """The newest checkpoint that proves sound, or None where there is none at all.

        For a damaged newer one a `UserWarning` names it, what is wrong with it, and the one used.

        Raises:
            UserError: there are checkpoints, and all of them are damaged.
        """
        reasons: dict[Path, str] = {}
        for step, path in self._listed():
            try:
                checkpoint = _read(step, path)
            except _DamagedError as error:
                reasons[path] = str(error)
                self._damaged.add(path)
                continue
            for damaged, reason in reasons.items():
                warnings.warn(
                    f"checkpoint {damaged} is damaged ({reason}); using {path} instead",
                    stacklevel=2,
                )
            return checkpoint
        if reasons:
            listed = "; ".join(f"{path} ({reason})" for path, reason in reasons.items())
            raise UserError(
                f"no checkpoint can be used: {listed}; bring one back from a copy, or move "
                f"{self.directory} away to learn anew from the collected episodes"
            )
        return None

    def newest(self) -> Path | None:
        """The newest checkpoint not known to be damaged, unread; None if there is none."""
        paths = [path for _, path in self._listed() if path not in self._damaged]
        return paths[0] if paths else None

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Checkpoint:
        """The checkpoint in the folder `path`.

        Raises:
            UserError: there is none, or it is damaged.
        """
        folder = Path(path).expanduser()
        name = _NAME.fullmatch(folder.absolute().name)
        if not name or not folder.is_dir():
            raise UserError(
                f"{path} is no checkpoint; expected a folder like "
                "runs/dmc_walker_walk/dreamer/0/checkpoints/000000010000"
            )
        try:
            return _read(int(name[1]), folder)
        except _DamagedError as error:
            raise UserError(f"checkpoint {path} is damaged ({error}); choose another") from error

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


def _write_files(
    folder: Path, step: int, arrays: Mapping[str, np.ndarray], state: bytes
) -> None:
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


def _read(step: int, path: Path) -> Checkpoint:
    if path.is_symlink() or not path.is_dir():
        raise _DamagedError("not a folder")
    manifest = _parse(MANIFEST, _content(path / MANIFEST, _MANIFEST_LIMIT))
    if manifest.get("format") != FORMAT:
        raise _DamagedError(f"{MANIFEST} says format {manifest.get('format')!r}, expected {FORMAT}")
    if manifest.get("step") != step:
        raise _DamagedError(f"{MANIFEST} says step {manifest.get('step')!r}, its folder {step}")
    files = manifest.get("files")
    if not isinstance(files, dict) or set(files) != {ARRAYS, STATE}:
        raise _DamagedError(f"{MANIFEST} does not list {ARRAYS} and {STATE}")
    contents = {name: _verified(path / name, files[name]) for name in (ARRAYS, STATE)}
    state = _parse(STATE, contents[STATE])
    return Checkpoint(step, _parse_arrays(contents[ARRAYS]), state, path)


def _verified(path: Path, expected: Any) -> bytes:
    size = expected.get("bytes") if isinstance(expected, dict) else None
    if not isinstance(size, int):
        raise _DamagedError(f"{MANIFEST} gives no size for {path.name}")
    content = _content(path, size)
    if len(content) != size:
        raise _DamagedError(f"{path.name} has {len(content):,} bytes, expected {size:,}")
    if _fingerprint(content) != expected:
        raise _DamagedError(f"{path.name} does not have the SHA-256 that {MANIFEST} gives")
    return content


def _content(path: Path, limit: int) -> bytes:
    """The bytes of an ordinary file of at most `limit` of them: no link, pipe or device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _DamagedError(f"{path.name} is not an ordinary file")
            if status.st_size > limit:
                raise _DamagedError(f"{path.name} has {status.st_size:,} bytes, expected {limit:,}")
            return file.read()
    except OSError as error:
        raise _DamagedError(f"{path.name}: {error.strerror}") from error


def _parse(name: str, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _DamagedError(f"{name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _DamagedError(f"{name} holds a {type(value).__name__}, expected a map")
    return value


def _parse_arrays(content: bytes) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name in arrays or name == info.filename:
                    raise _DamagedError(f"{ARRAYS} has a member {info.filename!r} that is not ours")
                arrays[name] = _parse_array(archive, info)
    except _UNREADABLE as error:
        raise _DamagedError(f"{ARRAYS}: {error}") from error
    return arrays


def _parse_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    # Stored members cannot swell on reading, and the shape in a header is held against the
    # bytes that are really there before any memory is asked for.
    if info.compress_type != zipfile.ZIP_STORED:
        raise _DamagedError(f"{ARRAYS}: {info.filename} is compressed, which ours never are")
    raw = archive.read(info)
    member = io.BytesIO(raw)
    version = np.lib.format.read_magic(member)
    if version != (1, 0):
        raise _DamagedError(f"{ARRAYS}: {info.filename} has version {version}, expected (1, 0)")
    shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    if dtype.kind not in _KINDS:
        raise _DamagedError(f"{ARRAYS}: {info.filename} has dtype {dtype}, expected numbers")
    size, there = dtype.itemsize, len(raw) - member.tell()
    for length in shape:
        size *= int(length)
    if size != there:
        raise _DamagedError(f"{ARRAYS}: {info.filename} claims {size:,} bytes and has {there:,}")
    member.seek(0)
    return np.lib.format.read_array(member, allow_pickle=False)
