"""The files of one checkpoint: written, and read without trusting anything in them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import tokenize
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.files import open_to_read

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
