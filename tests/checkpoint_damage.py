"""Ways to damage a checkpoint's folder."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np


def rehash(folder: Path) -> None:
    """Makes the manifest agree with the files, as a forger would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        content = (folder / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        manifest["files"][name] = {"bytes": len(content), "sha256": digest}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def truncated(folder: Path) -> None:
    content = (folder / "arrays.npz").read_bytes()
    (folder / "arrays.npz").write_bytes(content[: len(content) // 2])


def flipped_bit(folder: Path) -> None:
    content = bytearray((folder / "arrays.npz").read_bytes())
    content[len(content) // 3] ^= 1
    (folder / "arrays.npz").write_bytes(content)


def missing_arrays(folder: Path) -> None:
    (folder / "arrays.npz").unlink()


def missing_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def forged_manifest(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../../config.yaml"] = manifest["files"].pop("state.json")
    (folder / "manifest.json").write_text(json.dumps(manifest))


def empty_folder(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def wrong_json(folder: Path) -> None:
    (folder / "state.json").write_text("[" * 100_000)
    rehash(folder)


def replaced_by_directory(folder: Path) -> None:
    (folder / "state.json").unlink()
    (folder / "state.json").mkdir()


def symlink(folder: Path) -> None:
    (folder / "arrays.npz").rename(folder.parent.parent / "elsewhere.npz")
    (folder / "arrays.npz").symlink_to(folder.parent.parent / "elsewhere.npz")


def another_step(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "step": 1}))


def folder_is_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def a_pipe(folder: Path) -> None:
    (folder / "state.json").unlink()
    os.mkfifo(folder / "state.json")


def a_deep_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"a":' * 50_000)


def members(folder: Path, **content: bytes) -> None:
    """A forged arrays.npz whose manifest agrees with it."""
    with zipfile.ZipFile(folder / "arrays.npz", "w") as archive:
        for name, data in content.items():
            archive.writestr(f"{name}.npy", data)
    rehash(folder)


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def objects(folder: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([open], dtype=object), allow_pickle=True)
    members(folder, a=buffer.getvalue())


def forged(folder: Path, shape: str) -> None:
    """A sound archive of an array whose header claims a shape, with 16 bytes of data."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    members(folder, a=npy(header, bytes(16)))


def terabytes(folder: Path) -> None:
    forged(folder, "(1000000, 1000000)")


def negative_shape(folder: Path) -> None:
    forged(folder, "(-2, -2)")


def sparse(folder: Path) -> None:
    """Files of terabytes, which take no room on the disk; the manifest agrees with them."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        os.truncate(folder / name, 1 << 41)
        manifest["files"][name]["bytes"] = 1 << 41
    (folder / "manifest.json").write_text(json.dumps(manifest))


def compressed_bomb(folder: Path) -> None:
    with zipfile.ZipFile(folder / "arrays.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(50_000_000))
    rehash(folder)


def nested_members(folder: Path) -> None:
    """Each member contains the next one, so that all together are far larger than the file."""
    blob, entries = bytes(100_000), []
    for number in range(50):
        shape = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({len(blob)},), }}"
        name, data = f"{number}.npy".encode(), npy(shape, blob)
        numbers = 20, 0, 0, 0, 0, zlib.crc32(data), len(data), len(data), len(name), 0
        local = struct.pack("<4s5H3L2H", b"PK\3\4", *numbers) + name
        entries.append((name, numbers, len(local) + len(data)))
        blob = local + data
    directory = b"".join(  # each member reaches to the end
        struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *numbers, 0, 0, 0, 0, len(blob) - reach) + name
        for name, numbers, reach in entries
    )
    counts = 0, 0, len(entries), len(entries), len(directory), len(blob), 0
    end = struct.pack("<4s4H2LH", b"PK\5\6", *counts)
    (folder / "arrays.npz").write_bytes(blob + directory + end)
    rehash(folder)


def member_of_another_kind(folder: Path) -> None:
    with zipfile.ZipFile(folder / "arrays.npz", "w") as archive:
        archive.writestr("../escape.txt", b"")
    rehash(folder)


DAMAGES = [
    *(truncated, flipped_bit, missing_arrays, missing_manifest, forged_manifest, empty_folder),
    *(wrong_json, replaced_by_directory, symlink, another_step, folder_is_a_file, a_pipe),
    *(a_deep_manifest, objects, terabytes, negative_shape, compressed_bomb, nested_members),
    *(member_of_another_kind, sparse),
]
