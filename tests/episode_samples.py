"""Sound and damaged episodes for tests."""

import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dreamer.data.episodes import EpisodeFile

Arrays = dict[str, np.ndarray]


def make_episode(length: int, seed: int = 0, size: int = 8, terminal: bool = False) -> Arrays:
    """A complete episode of random images and vectors."""
    rng = np.random.default_rng(seed)
    first, last = np.arange(length) == 0, np.arange(length) == length - 1
    return {
        "image": rng.integers(0, 256, (length, size, size, 3), np.uint8),
        "position": rng.normal(size=(length, 4)).astype(np.float32),
        "touch": rng.random((length, 2)) < 0.5,
        "action": np.where(first[:, None], 0, rng.uniform(-1, 1, (length, 2))).astype(np.float32),
        "reward": np.where(first, 0, rng.random(length)).astype(np.float32),
        "cont": 1 - (last & terminal).astype(np.float32),
        "is_first": first,
        "is_last": last,
        "is_terminal": last & terminal,
    }


def file_arrays(episode: Arrays) -> Arrays:
    """Returns the arrays under their names in a file."""
    return {{"cont": "discount"}.get(key, key): value for key, value in episode.items()}


def assert_same(got: Arrays, expected: Arrays) -> None:
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert got[key].dtype == value.dtype, key
        np.testing.assert_array_equal(got[key], value, key)


def open_and_check(path: Path) -> EpisodeFile:
    file = EpisodeFile(path)
    file.check(file.keys, {"position": np.dtype(np.float32)})
    return file


def without(*keys: str) -> Callable[[Arrays], Arrays]:
    return lambda episode: {key: value for key, value in episode.items() if key not in keys}


def changed(**arrays: object) -> Callable[[Arrays], Arrays]:
    return lambda episode: {**episode, **{key: np.asarray(v) for key, v in arrays.items()}}


def npz_bytes(arrays: Arrays) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=True, **arrays)
    return stream.getvalue()


def forged(path: Path) -> None:
    """A header that claims 64 TiB of images, in an archive that is otherwise sound."""
    header = io.BytesIO()
    shape = (1 << 32, 128, 128, 1)
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image.npy", header.getvalue())
        for key in ("action", "reward", "discount"):
            stream = io.BytesIO()
            np.save(stream, np.zeros((3, 2) if key == "action" else 3, np.float32))
            archive.writestr(f"{key}.npy", stream.getvalue())


def forged_size(path: Path) -> None:
    """A compressed member whose directory entry and header both claim gigabytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (3, 1 << 30)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", header.getvalue())
    raw = bytearray(path.read_bytes())
    entry = raw.rindex(b"PK\x01\x02")
    raw[entry + 24 : entry + 28] = struct.pack("<I", (3 << 30) + len(header.getvalue()))
    path.write_bytes(raw)


def zeros(path: Path, length: int) -> None:
    """An episode of zeros, compressed to a thousandth; only its checksums are wrong."""
    shapes = {"image": ("|u1", (8, 8, 3)), "position": ("<f4", (4,)), "action": ("<f4", (2,))}
    scalars = {"discount": ("<f4", ()), "reward": ("<f4", ())}
    directory = b""
    with open(path, "wb") as file:
        for key, (descr, shape) in {**shapes, **scalars}.items():
            head, where, name = io.BytesIO(), file.tell(), f"{key}.npy".encode()
            shape = (length, *shape)
            np.lib.format.write_array_header_1_0(
                head, {"descr": descr, "fortran_order": False, "shape": shape}
            )
            data = math.prod(shape) * np.dtype(descr).itemsize
            packed = _deflated(head.getvalue(), data)
            sizes = len(packed), len(head.getvalue()) + data, len(name), 0
            numbers = 20, 0, zipfile.ZIP_DEFLATED, 0, 0, 0, *sizes
            file.write(struct.pack("<4s5H3L2H", b"PK\3\4", *numbers) + name + packed)
            directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *numbers, 0, 0, 0, 0, where)
            directory += name
        counts = 0, 0, 5, 5, len(directory), file.tell(), 0
        file.write(directory + struct.pack("<4s4H2LH", b"PK\5\6", *counts))


def _deflated(head: bytes, count: int) -> bytes:
    """Compresses `head` and `count` zeros, by repeating one compressed piece."""
    piece = bytes(1 << 20)
    stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    begin = stream.compress(head) + stream.flush(zlib.Z_FULL_FLUSH)
    middle = stream.compress(piece) + stream.flush(zlib.Z_FULL_FLUSH)
    end = stream.compress(bytes(count % len(piece))) + stream.flush()
    return begin + middle * (count // len(piece)) + end


def huge_directory(path: Path) -> None:
    """A sparse file of 256 MiB that claims to be a directory of members from end to end."""
    size = 1 << 28
    os.truncate(path, size)
    with open(path, "ab") as file:
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size, 0, 0))


def _edit(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(change(path.read_bytes())) and None


def _replace(change: Callable[[Arrays], Arrays]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(npz_bytes(change(file_arrays(make_episode(20))))) and None


def _flip(at: float) -> Callable[[bytes], bytes]:
    def flip(raw: bytes) -> bytes:
        index = int(len(raw) * at)
        return raw[:index] + bytes([raw[index] ^ 1]) + raw[index + 1 :]

    return flip


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _as_npy(path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    path.write_bytes(stream.getvalue())


def _as_link(path: Path) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


def _compressed_beyond_float32(path: Path) -> None:
    arrays = changed(position=np.full((20, 4), 1e300))(file_arrays(make_episode(20)))
    np.savez_compressed(path, **arrays)


def descr(text: str) -> Callable[[Path], None]:
    """Writes `text` as the dtype into the header of the rewards."""

    def forge(path: Path) -> None:
        stream = io.BytesIO()
        np.save(stream, np.zeros(20, np.float32))
        raw = stream.getvalue()
        header = raw[:128].replace(b"'<f4'", text.encode()).rstrip()[:127].ljust(127) + b"\n"
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {**members, "reward.npy": header + raw[128:]}.items():
                archive.writestr(name, content)

    return forge


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (_edit(lambda raw: raw[: len(raw) // 2]), "no readable .npz"),
    "cut by one byte": (_edit(lambda raw: raw[:-1]), "no readable .npz"),
    "zero tail": (_edit(lambda raw: raw[: len(raw) // 2] + bytes(len(raw) // 2)), "no readable"),
    "zero middle": (
        _edit(lambda raw: raw[:2000] + bytes(500) + raw[2500:]),
        "checksum of 'image'|Bad CRC-32 for file 'image",
    ),
    "bit flip in data": (_edit(_flip(0.4)), "checksum of 'image'|Bad CRC-32 for file 'image"),
    "bit flip in directory": (
        _edit(lambda raw: raw.replace(b"PK\x01\x02", b"PK\x01\x03")), "no readable .npz",
    ),
    "missing action": (_replace(without("action")), "lacks action"),
    "missing discount": (_replace(without("discount", "is_terminal")), "lacks discount"),
    "wrong dtype": (_replace(changed(reward=np.array(["a"] * 20))), "not plain numbers"),
    "complex numbers": (_replace(changed(reward=np.zeros(20, complex))), "not plain numbers"),
    "wrong rank": (_replace(changed(reward=np.zeros((20, 1)))), "reward has the shape"),
    "unequal lengths": (_replace(changed(reward=np.zeros(19))), "lengths differ"),
    "no timesteps": (_replace(lambda found: {k: v[:0] for k, v in found.items()}), "no timesteps"),
    "not a number": (_replace(changed(reward=np.full(20, np.nan))), "not finite"),
    "beyond float32": (_replace(changed(reward=np.full(20, 1e300))), "not finite"),
    "observation beyond float32": (
        _replace(changed(position=np.full((20, 4), -1e300))), "position holds numbers that are not",
    ),
    "compressed beyond float32": (_compressed_beyond_float32, "position holds numbers that are"),
    "discount of 2": (_replace(changed(discount=np.full(20, 2.0))), "outside of 0 to 1"),
    "not first": (_replace(changed(is_first=np.zeros(20, bool))), "is_first is false"),
    "object array": (_replace(changed(reward=np.array([{}] * 20))), "damaged|not plain numbers"),
    "no dtype": (descr("()"), "damaged"),
    "a dtype of one word": (descr("('f4',)"), "damaged"),
    "a dtype of a nameless field": (descr("[('a',())]"), "damaged"),
    "forged header": (forged, "claims the shape"),
    "forged size": (forged_size, "it unpacks to|does not fit|reaches beyond"),
    "unpacks to more than is read": (lambda path: zeros(path, 5_000_000), "it unpacks to 1,1"),
    "huge directory": (huge_directory, "no readable .npz.*268,435,456"),
    "renamed .npy": (_as_npy, "no readable .npz"),
    "empty": (_edit(lambda raw: b""), "empty"),
    "text": (_edit(lambda raw: b"step,reward\n1,2\n"), "no readable .npz"),
    "directory": (_as_folder, "no regular file|not a regular file"),
    "pipe": (_as_pipe, "not a regular file"),
    "link": (_as_link, "it is a link"),
    "unreadable": (lambda path: path.chmod(0), "Permission denied"),  # to an `ordinary_user`
    "gone": (Path.unlink, "cannot be read"),
}  # fmt: skip


def mutate(raw: bytes, rng: np.random.Generator) -> bytes:
    """One random mutation, often in the directory at the end, where the structure is."""
    data = np.frombuffer(raw, np.uint8).copy()
    near_end = rng.random() < 0.6
    start = int(rng.integers(len(data) - 1200 if near_end else 0, len(data)))
    stop = min(len(data), start + int(rng.integers(1, 40)))
    kind = rng.integers(6)
    if kind == 0:
        data[start] ^= np.uint8(1 << rng.integers(8))
    elif kind == 1:
        data[start:stop] = rng.integers(0, 256, stop - start)
    elif kind == 2:
        data[start:stop] = rng.choice([0, 255])
    elif kind == 3:
        return data[:start].tobytes()
    elif kind == 4:
        return np.delete(data, np.s_[start:stop]).tobytes()
    else:
        return np.insert(data, start, data[start:stop]).tobytes()
    return data.tobytes()
