"""Episode files: one complete episode, one .npz.

Record t of an episode is (observation_t, the action that led to it, the reward received on
arriving, flags). A file holds, all of one length L:

======================  ==========================  ==============================================
member                  dtype and shape             meaning
======================  ==========================  ==============================================
observation keys        any number, [L, ...]        ``image`` uint8 [L, H, W, C] and the like
``action``              float32 [L, A]              zero in the first record
``reward``              float32 [L]                 zero in the first record
``discount``            float32 [L]                 called `cont` in memory: 0 at a true terminal
``is_first``            bool [L]                    true in record 0
``is_last``             bool [L]                    true in the last record
``is_terminal``         bool [L]                    true at a true terminal, not at a time limit
======================  ==========================  ==============================================

Our own members are stored uncompressed, so that a slice is read without the rest. The files of
older TF2 implementations load too: compressed, float16 or float64 in place of float32, and with
missing members, which are derived: `is_first` is true in record 0 alone, `is_last` in the last
record alone, `is_terminal` where the discount is 0, and `cont` is 1 - `is_terminal`. A file with
neither `discount` nor `is_terminal` cannot tell a terminal from a time limit and is refused.
"""

from __future__ import annotations

import re
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dreamer.episode_file import EPISODE_KEYS, FLAGS, FLOATS, EpisodeError, EpisodeFile
from dreamer.files import atomic_write, make_folder
from dreamer.npz import path_text

__all__ = [
    "EPISODE_KEYS",
    "FLAGS",
    "EpisodeError",
    "EpisodeFile",
    "episode_uid",
    "move_aside",
    "moved_aside",
    "save_episode",
]

_NAME = re.compile(r"(?P<timestamp>\d{8}T\d{6}\w*)-(?P<uid>.+)-(?P<length>\d+)\.npz")
_AGAIN = re.compile(r"(?<=\.npz)\.\d+$")  # what `move_aside` adds where a name is taken
_MEMBER_OVERHEAD = 512  # bytes of headers and directory, at most
_UID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def episode_uid(path: Path) -> str:
    """Returns the unique id within an episode file's name (the whole stem of a foreign name)."""
    match = _NAME.fullmatch(path.name)
    return match["uid"] if match else path.stem


def save_episode(
    directory: Path, episode: Mapping[str, np.ndarray], uid: str, timestamp: str | None = None
) -> Path:
    """Writes one complete episode, so that at any moment its file is complete or absent.

    Args:
        directory: Folder, made if missing.
        episode: Arrays [L, ...]: observations, action, reward, cont and the three flags.
        uid: Unique id, of letters, digits, ``_``, ``.`` and ``-``.
        timestamp: Begins the name; now, unless a file of that name is to be replaced.

    Returns:
        The path, ``<timestamp>-<uid>-<L>.npz``.

    Raises:
        ValueError: the episode or the id is malformed.
        DiskFullError: there is no room for it.
        StorageError: the folder cannot be made or written.
    """
    if not _UID.fullmatch(uid):
        raise ValueError(f"an episode's uid is made of letters, digits, _ . and -, got {uid!r}")
    members = _file_members(episode)
    length = len(members["action"])
    path = directory / f"{timestamp or time.strftime('%Y%m%dT%H%M%S')}-{uid}-{length}.npz"
    needed = sum(array.nbytes + _MEMBER_OVERHEAD for array in members.values())
    make_folder(directory)
    with atomic_write(path, needed) as file:
        _write(file, members)
    return path


def _file_members(episode: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Checks an episode in memory and returns it under the names and dtypes of the file."""
    missing = [key for key in EPISODE_KEYS if key not in episode]
    if missing or len(episode) == len(EPISODE_KEYS):
        raise ValueError(f"an episode lacks {', '.join(missing) or 'any observation'}")
    if "discount" in episode:
        raise ValueError("no observation may be called discount: that is cont's name in files")
    length = max(1, *np.shape(episode["action"])[:1])
    members = {}
    for key, value in episode.items():
        array = np.asarray(value)
        if array.dtype.kind not in "buif":
            raise ValueError(f"{key} of an episode holds {array.dtype}, not plain numbers")
        if array.shape[:1] != (length,):
            raise ValueError(
                f"{key} of an episode has shape {array.shape}, expected {length} records"
            )
        dtype = np.float32 if key in FLOATS else np.bool_ if key in FLAGS else array.dtype
        with np.errstate(over="ignore"):
            member = np.ascontiguousarray(array, dtype)
        if member.dtype.kind == "f" and not np.isfinite(member).all():
            raise ValueError(f"{key} of an episode is not finite")
        members[{"cont": "discount"}.get(key, key)] = member
    if not members["is_first"][0]:
        raise ValueError("is_first of an episode is false in its first record")
    return members


def _write(file: BinaryIO, members: Mapping[str, np.ndarray]) -> None:
    """Writes an uncompressed .npz whose bytes depend on the arrays alone."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in members.items():
            info = zipfile.ZipInfo(f"{name}.npy")  # dated 1980: the same each time
            with archive.open(info, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def move_aside(path: Path, folder: Path) -> str:
    """Moves a file, whatever it is, into `folder` beside it; says in words what became of it.

    It takes a name that is free there. Where it cannot be moved it stays.
    """
    target, count = folder / path.name, 0
    try:
        folder.mkdir(exist_ok=True)
        if folder.is_symlink():  # in a run from a stranger it may lead anywhere
            return f"it stays where it is ({path_text(folder)} is a link)"
        while target.is_symlink() or target.exists():
            count += 1
            target = folder / f"{path.name}.{count}"
        path.rename(target)
    except OSError as error:
        return f"it stays where it is ({error.strerror})"
    return f"moved to {path_text(target)}"


def moved_aside(folder: Path) -> list[str]:
    """Unique ids of the episode files that `move_aside` has moved into `folder`."""
    names = (_AGAIN.sub("", path.name) for path in folder.glob("*.npz*"))
    return sorted({episode_uid(folder / name) for name in names})
