"""Ways to damage a checkpoint's folder."""

import hashlib
import io
import json
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
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


def edit(folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    (folder / name).write_bytes(change((folder / name).read_bytes()))


def edit_manifest(folder: Path, change: Callable[[dict], dict]) -> None:
    edit(folder, "manifest.json", lambda raw: json.dumps(change(json.loads(raw))).encode())


def flipped_bit(folder: Path) -> None:
    at = (folder / "arrays.npz").stat().st_size // 3
    edit(folder, "arrays.npz", lambda raw: raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])


def forged_manifest(manifest: dict) -> dict:
    manifest["files"]["../../config.yaml"] = manifest["files"].pop("state.json")
    return manifest


def empty_folder(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def wrong_json(folder: Path) -> None:
    (folder / "state.json").write_text("[" * 100_000)
    rehash(folder)


def replaced(folder: Path, make: Callable[[Path], object]) -> None:
    """Replaces a file by something that is none."""
    (folder / "state.json").unlink()
    make(folder / "state.json")


def symlink(folder: Path) -> None:
    (folder / "arrays.npz").rename(folder.parent.parent / "elsewhere.npz")
    (folder / "arrays.npz").symlink_to(folder.parent.parent / "elsewhere.npz")


def folder_is_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def forged(folder: Path, content: bytes, name: str = "a.npy", **options: int) -> None:
    """An arrays.npz of one member, with which the manifest agrees."""
    with zipfile.ZipFile(folder / "arrays.npz", "w", **options) as archive:
        archive.writestr(name, content)
    rehash(folder)


def objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([open], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def npy(shape: str, data: bytes, descr: str = "<f4") -> bytes:
    """An array whose header claims a shape, whatever the data."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def sparse(folder: Path) -> None:
    """Files of terabytes, which take no room on the disk; the manifest agrees with them."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        os.truncate(folder / name, 1 << 41)
        manifest["files"][name]["bytes"] = 1 << 41
    (folder / "manifest.json").write_text(json.dumps(manifest))


def nested_members(folder: Path) -> None:
    """Each member contains the next one, so that all together are far larger than the file."""
    blob, entries = bytes(100_000), []
    for number in range(50):
        name, data = f"{number}.npy".encode(), npy(f"({len(blob)},)", blob, "|u1")
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


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda folder: edit(folder, "arrays.npz", lambda raw: raw[: len(raw) // 2]),
    "flipped bit": flipped_bit,
    "missing arrays": lambda folder: (folder / "arrays.npz").unlink(),
    "missing manifest": lambda folder: (folder / "manifest.json").unlink(),
    "forged manifest": lambda folder: edit_manifest(folder, forged_manifest),
    "another step": lambda folder: edit_manifest(folder, lambda manifest: {**manifest, "step": 1}),
    "deep manifest": lambda folder: (folder / "manifest.json").write_text('{"a":' * 50_000),
    "empty folder": empty_folder,
    "folder is a file": folder_is_a_file,
    "wrong JSON": wrong_json,
    "directory": lambda folder: replaced(folder, Path.mkdir),
    "pipe": lambda folder: replaced(folder, os.mkfifo),
    "link": symlink,
    "objects": lambda folder: forged(folder, objects()),
    "terabytes": lambda folder: forged(folder, npy("(1000000, 1000000)", bytes(16))),
    "negative shape": lambda folder: forged(folder, npy("(-2, -2)", bytes(16))),
    "compressed bomb": lambda folder: forged(
        folder, bytes(50_000_000), compression=zipfile.ZIP_DEFLATED
    ),
    "member of another kind": lambda folder: forged(folder, b"", "../escape.txt"),
    "nested members": nested_members,
    "sparse": sparse,
}
