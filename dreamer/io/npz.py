"""Reading .npz archives of plain numeric arrays, slice by slice, trusting nothing in them.

Training samples short slices out of long episodes, so a slice of a member that is stored
uncompressed costs one positioned read of just its bytes; nothing is mapped or held. Every number
that a file states (offsets, sizes, shapes) is compared with the size of the file before anything
is allocated, object arrays are refused, and each member's checksum can be verified. Compressed
members are unpacked as a whole, so the size of an archive with such members is bounded.
"""

from __future__ import annotations

import functools
import io
import math
import os
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAX_UNPACKED = 1 << 30
"""Bytes of all members of an archive in which some must be read whole, compressed or in another
order of axes; the longest Atari episode, 27,000 records of 64x64x3, has 0.31 GiB."""

_MAX_RATIO = 1032  # deflate cannot shrink further, so a larger claim is forged
_MAX_HEADER = 4096  # bytes of a .npy header; NumPy writes 128 for every array of numbers
_MAX_EXTRA = 256  # bytes of a local header's extra field; NumPy writes 20
_MAX_DIRECTORY = 1 << 20  # bytes; an array takes about 60
_CHUNK = 1 << 20
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and the extra field

_ZIP_ERRORS = (
    zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OverflowError, struct.error,
    IndexError, RuntimeError,
)  # fmt: skip
_HEADER_ERRORS = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, SyntaxError, MemoryError,
    RecursionError, EOFError, OverflowError, tokenize.TokenError, struct.error,
)  # fmt: skip


class NpzError(Exception):
    """The archive is damaged, or holds something other than plain numeric arrays."""


@dataclass(frozen=True, slots=True)
class Member:
    """One array of an archive: what it is and where its bytes lie."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    deflated: bool
    offset: int  # of the member's first byte in the file
    packed: int  # bytes in the file
    header: int  # bytes of the .npy header, once unpacked
    size: int  # bytes once unpacked, header included
    crc: int

    @property
    def sliceable(self) -> bool:
        """Whether records can be read without reading the whole member."""
        return not self.deflated and not self.fortran

    @property
    def nbytes(self) -> int:
        """Bytes of the array in memory."""
        return self.size - self.header


class _File(io.FileIO):
    """A file whose reader asks for no more at once than a directory of ours could take."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"its directory claims {size:,} bytes")
        return super().read(size)


def read_members(fd: int) -> dict[str, Member]:
    """Reads the directory of an archive and the header of each array, but no data.

    Returns:
        Members by name, without the ending ``.npy``, in the order of the archive.

    Raises:
        NpzError: anything in it is damaged, forged or no plain numeric array.
        OSError: it cannot be read.
    """
    size = os.fstat(fd).st_size
    if size == 0:
        raise NpzError("it is empty")
    try:
        with _File(fd, closefd=False) as file, zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except _ZIP_ERRORS as error:
        raise NpzError(f"it is no readable .npz archive ({error})") from error
    members: dict[str, Member] = {}
    for info in infos:
        member = _read_member(fd, size, info)
        if member.name in members:
            raise NpzError(f"it holds {member.name!r} twice")
        members[member.name] = member
    whole = sum(member.size for member in members.values())
    if whole > MAX_UNPACKED and not all(member.sliceable for member in members.values()):
        raise NpzError(f"it unpacks to {whole:,} bytes, at most {MAX_UNPACKED:,} are unpacked")
    return members


def read_records(fd: int, member: Member, start: int, out: np.ndarray) -> None:
    """Reads records start..start+len(out) of a sliceable member into `out`, in one read.

    Args:
        fd: Descriptor of the archive.
        start: First record, counted along the first axis.
        out: C-contiguous array of the member's dtype and its shape after the first axis.

    Raises:
        NpzError: the file ends early.
    """
    stride = math.prod(member.shape[1:]) * member.dtype.itemsize
    _read_exactly(fd, member.offset + member.header + start * stride, out, member.name)


def read_array(fd: int, member: Member) -> np.ndarray:
    """Reads a whole member, unpacking it where needed, and verifies its checksum.

    Raises:
        NpzError: the data are damaged, or unpack to something else than the header states.
    """
    raw = np.empty(member.size, np.uint8)
    if member.deflated:
        _inflate(fd, member, raw)
    else:
        _read_exactly(fd, member.offset, raw, member.name)
    if zlib.crc32(raw.data) != member.crc:
        raise NpzError(f"the checksum of {member.name!r} does not match")
    flat = raw[member.header :].view(member.dtype)
    if member.fortran:
        return np.ascontiguousarray(flat.reshape(member.shape[::-1]).T)
    return flat.reshape(member.shape)


def verify_checksum(fd: int, member: Member) -> None:
    """Reads an uncompressed member through once, in pieces, and compares its checksum.

    Raises:
        NpzError: it does not match, or the file ends early.
    """
    crc, done = 0, 0
    piece = np.empty(min(_CHUNK, member.size), np.uint8)
    while done < member.size:
        part = piece[: min(_CHUNK, member.size - done)]
        _read_exactly(fd, member.offset + done, part, member.name)
        crc = zlib.crc32(part.data, crc)
        done += len(part)
    if crc != member.crc:
        raise NpzError(f"the checksum of {member.name!r} does not match")


def _read_member(fd: int, file_size: int, info: zipfile.ZipInfo) -> Member:
    name = info.filename.removesuffix(".npy")
    if not info.filename.endswith(".npy"):
        raise NpzError(f"it holds {info.filename!r}, which is no array")
    if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NpzError(f"{name!r} is encrypted or compressed in an unknown way")
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    offset, head = _read_head(fd, info)
    _check_sizes(name, info, offset, deflated, file_size)
    if deflated:
        try:
            head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, _MAX_HEADER)
        except zlib.error as error:
            raise NpzError(f"{name!r} does not decompress ({error})") from error
    length = _header_length(name, head)
    try:
        dtype, shape, fortran = _parse_header(head[:length])
    except _HEADER_ERRORS as error:
        raise NpzError(f"the header of {name!r} is damaged: {error}") from error
    member = Member(
        name, dtype, shape, fortran and len(shape) > 1, deflated, offset,
        info.compress_size, length, info.file_size, info.CRC,
    )  # fmt: skip
    if math.prod(shape) * dtype.itemsize != member.nbytes:
        raise NpzError(f"{name!r} claims the shape {shape}, which does not fit its bytes")
    return member


def _read_head(fd: int, info: zipfile.ZipInfo) -> tuple[int, bytes]:
    """Returns where a member's data begin, and the first of them.

    They follow the member's local header, whose length only it knows; one read takes both.
    """
    utf8 = info.flag_bits & 0x800 or info.orig_filename.isascii()
    name = info.orig_filename.encode("utf-8" if utf8 else "cp437")
    at = _LOCAL_HEADER.size + len(name)
    raw = b""
    if info.header_offset >= 0:
        raw = os.pread(fd, at + _MAX_EXTRA + _MAX_HEADER, info.header_offset)
    if len(raw) < at:
        raise NpzError(f"{info.filename!r} lies outside of the file")
    signature, name_length, extra_length = _LOCAL_HEADER.unpack_from(raw)
    if signature != b"PK\x03\x04" or name_length != len(name) or raw[at - len(name) : at] != name:
        raise NpzError(f"{info.filename!r} is not where the directory says")
    start = at + extra_length
    return info.header_offset + start, raw[start : start + info.compress_size]


def _check_sizes(
    name: str, info: zipfile.ZipInfo, offset: int, deflated: bool, file_size: int
) -> None:
    if offset + info.compress_size > file_size:
        raise NpzError(f"{name!r} reaches beyond the end of the file")
    if not deflated and info.file_size != info.compress_size:
        raise NpzError(f"{name!r} states two different sizes")
    if deflated and info.file_size > info.compress_size * _MAX_RATIO + 1024:
        raise NpzError(f"{name!r} claims to unpack to {info.file_size} bytes")


def _header_length(name: str, head: bytes) -> int:
    if head[:6] != np.lib.format.MAGIC_PREFIX or len(head) < 12:
        raise NpzError(f"{name!r} is no .npy array")
    # Version 1 counts the header in two bytes, later ones in four.
    size = 2 if head[6] == 1 else 4
    length = 8 + size + int.from_bytes(head[8 : 8 + size], "little")
    if length > len(head):
        raise NpzError(f"the header of {name!r} is too long or cut off")
    return length


@functools.lru_cache(maxsize=4096)  # episodes of one length share their headers
def _parse_header(head: bytes) -> tuple[np.dtype, tuple[int, ...], bool]:
    """Returns dtype, shape and order of axes; a ValueError or its like where they are not sound."""
    if b"\\" in head[12:]:  # in no plain array's header; Python would warn of odd escapes
        raise ValueError("it holds a backslash")
    stream = io.BytesIO(head)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream, _MAX_HEADER)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream, _MAX_HEADER)
    else:
        raise ValueError(f"its version is {version}")
    if dtype.kind not in "buif":
        raise ValueError(f"it describes {dtype}, not plain numbers")
    if any(size < 0 for size in shape):
        raise ValueError(f"it claims the shape {shape}")
    return dtype, shape, fortran


def _read_exactly(fd: int, offset: int, out: np.ndarray, name: str) -> None:
    view = out.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done:]], offset + done)
        if count == 0:
            raise NpzError(f"the file ends within {name!r}")
        done += count


def _inflate(fd: int, member: Member, out: np.ndarray) -> None:
    """Unpacks a member into `out` and not a byte more, whatever the file claims."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    read, done = 0, 0
    try:
        while done < len(out) and not stream.eof:
            data = stream.unconsumed_tail
            if not data:
                data = os.pread(fd, min(_CHUNK, member.packed - read), member.offset + read)
                read += len(data)
            piece = stream.decompress(data, min(_CHUNK, len(out) - done))
            if not data and not piece:
                break
            out[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
            done += len(piece)
    except zlib.error as error:
        raise NpzError(f"{member.name!r} does not decompress ({error})") from error
    if done < len(out):
        raise NpzError(f"{member.name!r} unpacks to {done} bytes instead of {len(out)}")


def path_text(path: str | os.PathLike[str]) -> str:
    """Returns a path fit for a message, however odd its bytes are."""
    return os.fsencode(Path(path)).decode("utf-8", "backslashreplace")
