"""Archives of plain numeric arrays (.npz): one writer, and one reader that trusts nothing.

Training samples short slices of long episodes. A slice of an uncompressed array costs one
positioned read of its bytes; nothing is mapped or held in memory. The reader compares all numbers
that a file states (offsets, sizes, shapes) with the size of the file before it allocates memory.
It refuses arrays of objects. Reading a whole array verifies its checksum. Compressed arrays are
unpacked as a whole, so their total size is bounded.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

NUMBERS = "buif"
"""NumPy's kinds of real numbers: bool, unsigned, signed, floating."""

# Bytes of all arrays of an archive if some of them must be read whole, because they are compressed
# or stored in another order of axes. The longest Atari episode, 27,000 timesteps of 64x64x3, has
# 0.31 GiB.
_MAX_UNPACKED = 1 << 30
_MAX_HEADER = 4096  # bytes of a .npy header; NumPy writes 128 for arrays of numbers
_MAX_READ = 1 << 20  # bytes of the directory, which has about 60 to 130 for each array

# What zipfile and NumPy raise when they read damaged bytes.
_UNREADABLE = (
    zipfile.BadZipFile, NotImplementedError, ValueError, TypeError, KeyError, IndexError,
    AttributeError, SyntaxError, RuntimeError, EOFError, OverflowError, tokenize.TokenError,
    struct.error, zlib.error,
)  # fmt: skip


class ArchiveError(Exception):
    """The archive is damaged, or holds something other than plain numeric arrays."""


@dataclass(frozen=True, slots=True)
class StoredArray:
    """One array of an archive: its type and the place of its data."""

    name: str  # without the ending .npy
    dtype: np.dtype
    shape: tuple[int, ...]
    sliceable: bool  # whether a slice can be read without the rest of the array
    offset: int  # position of its data in the file; only for a sliceable array
    packed: int  # bytes of header and data in the file

    @property
    def nbytes(self) -> int:
        """Bytes of the array in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_arrays(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an uncompressed archive, whose bytes depend on the arrays and their names alone."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")  # its date is always 1980
            with archive.open(info, "w", force_zip64=True) as stream:
                array = np.asarray(array, order="C")
                np.lib.format.write_array(stream, array, allow_pickle=False)


def read_directory(
    fd: int, kinds: str = NUMBERS, max_unpacked: float = _MAX_UNPACKED
) -> dict[str, StoredArray]:
    """Reads the directory of an archive and the header of each array, but no data.

    Args:
        fd: Descriptor of the file.
        kinds: NumPy's kinds of dtypes that the archive may hold.
        max_unpacked: Largest total size in bytes if some array must be read whole.

    Raises:
        ArchiveError: The archive is damaged or forged, or holds anything but arrays of `kinds`.
        OSError: The file cannot be read.
    """
    size = os.fstat(fd).st_size
    if size == 0:
        raise ArchiveError("it is empty")
    arrays: dict[str, StoredArray] = {}
    with _opened(fd) as archive:
        for info in archive.infolist():
            array = _read_entry(archive, fd, info, kinds)
            if array.name in arrays:
                raise ArchiveError(f"it holds {array.name!r} twice")
            arrays[array.name] = array
    # An entry may lie within another one. All of them together would then fill the memory.
    packed = sum(array.packed for array in arrays.values())
    if packed > size:
        raise ArchiveError(f"its arrays claim {packed:,} bytes of its {size:,}")
    unpacked = sum(array.nbytes for array in arrays.values())
    if unpacked > max_unpacked and not all(array.sliceable for array in arrays.values()):
        raise ArchiveError(f"it unpacks to {unpacked:,} bytes, at most {max_unpacked:,} are read")
    return arrays


def read_slice(fd: int, array: StoredArray, start: int, out: np.ndarray) -> None:
    """Reads entries start to start + len(out) - 1 of a sliceable array into `out`, in one read.

    `out` is C-contiguous, of the same dtype, and of the same shape after the first axis. Raises
    ArchiveError if the file ends early.
    """
    offset = array.offset + start * math.prod(array.shape[1:]) * array.dtype.itemsize
    view = out.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done:]], offset + done)
        if count == 0:
            raise ArchiveError(f"the file ends within {array.name!r}")
        done += count


def read_arrays(fd: int, arrays: Iterable[StoredArray]) -> Iterator[np.ndarray]:
    """Reads whole arrays; raises ArchiveError if a checksum or size differs from the directory."""
    with _opened(fd) as archive:
        for array in arrays:
            with archive.open(f"{array.name}.npy") as stream:
                yield np.lib.format.read_array(
                    stream, allow_pickle=False, max_header_size=_MAX_HEADER
                )


def verify_checksums(fd: int, arrays: Iterable[StoredArray]) -> None:
    """Reads arrays once, in pieces; raises ArchiveError if a checksum or size does not match."""
    with _opened(fd) as archive:
        for array in arrays:
            with archive.open(f"{array.name}.npy") as stream:
                while stream.read(_MAX_READ):
                    pass


class _File(io.FileIO):
    """A file that refuses to read more at once than the largest directory has."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_READ:
            raise zipfile.BadZipFile(f"its directory claims {size:,} bytes")
        return super().read(size)


@contextlib.contextmanager
def _opened(fd: int) -> Iterator[zipfile.ZipFile]:
    try:
        with _File(fd, closefd=False) as file, zipfile.ZipFile(file) as archive:
            yield archive
    except _UNREADABLE as error:
        raise ArchiveError(f"it is no readable .npz archive ({error})") from error


def _read_entry(
    archive: zipfile.ZipFile, fd: int, info: zipfile.ZipInfo, kinds: str
) -> StoredArray:
    size, name = os.fstat(fd).st_size, info.filename.removesuffix(".npy")
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    if name == info.filename or not (deflated or info.compress_type == zipfile.ZIP_STORED):
        raise ArchiveError(f"{name!r} is no array, or is compressed in an unknown way")
    if not 0 <= info.header_offset < size:
        raise ArchiveError(f"{name!r} lies outside of the file")
    try:
        with archive.open(info) as stream:  # refuses encryption, and a different local header
            head = stream.read(10)
            head += stream.read(int.from_bytes(head[8:], "little"))
        dtype, shape, fortran = _parse_header(head, kinds)
    except (*_UNREADABLE, MemoryError) as error:  # Python's parser has little memory of its own
        raise ArchiveError(f"{name!r} is damaged: {error}") from error
    # The local header alone states the length of its own name and extra field.
    lengths = struct.unpack("<HH", os.pread(fd, 4, info.header_offset + 26))
    start = info.header_offset + 30 + sum(lengths)
    twice = not deflated and info.file_size != info.compress_size
    if twice or start + info.compress_size > size:
        raise ArchiveError(f"{name!r} states two sizes, or reaches beyond the end of the file")
    sliceable = not deflated and not (fortran and len(shape) > 1)
    array = StoredArray(name, dtype, shape, sliceable, start + len(head), info.compress_size)
    if len(head) + array.nbytes != info.file_size:
        raise ArchiveError(f"{name!r} claims the shape {shape}, which does not fit its bytes")
    return array


@functools.lru_cache(maxsize=4096)  # episodes of one length have equal headers
def _parse_header(head: bytes, kinds: str) -> tuple[np.dtype, tuple[int, ...], bool]:
    """Returns dtype, shape and Fortran order; raises one of `_UNREADABLE` for a bad header."""
    if head[:8] != b"\x93NUMPY\x01\x00":  # later versions are for dtypes with fields
        raise ValueError("it is no .npy array of version 1.0")
    if b"\\" in head[10:]:  # never in a plain array's header; Python would warn of odd escapes
        raise ValueError("it holds a backslash")
    stream = io.BytesIO(head[8:])
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream, _MAX_HEADER)
    if dtype.kind not in kinds:
        raise ValueError(f"it describes {dtype}, not plain numbers")
    if any(size < 0 for size in shape):
        raise ValueError(f"it claims the shape {shape}")
    return dtype, shape, fortran
