"""Episode files: one complete episode, one .npz.

Timestep t of an episode is (observation_t, the action that led to it, the reward received on
arriving, flags). A file holds, all of one length L:

======================  ==========================  ==============================================
member                  dtype and shape             meaning
======================  ==========================  ==============================================
observation keys        any number, [L, ...]        ``image`` uint8 [L, H, W, C] and the like
``action``              float32 [L, A]              zero in the first timestep
``reward``              float32 [L]                 zero in the first timestep
``discount``            float32 [L]                 called `cont` in memory: 0 at a true terminal
``is_first``            bool [L]                    true in timestep 0
``is_last``             bool [L]                    true in the last timestep
``is_terminal``         bool [L]                    true at a true terminal, not at a time limit
======================  ==========================  ==============================================

Our own members are stored uncompressed, so that a slice is read without the rest. The files of
older TF2 implementations load too: compressed, float16 or float64 in place of float32, and with
missing members, which are derived: `is_first` is true in timestep 0 alone, `is_last` in the last
timestep alone, `is_terminal` where the discount is 0, and `cont` is 1 - `is_terminal`. A file with
neither `discount` nor `is_terminal` cannot tell a terminal from a time limit and is refused.
"""

from __future__ import annotations

import errno
import os
import re
import time
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np

from dreamer.io.files import IrregularFileError, atomic_write, make_folder, open_to_read
from dreamer.io.npz import (
    Member,
    NpzError,
    path_text,
    read_array,
    read_members,
    read_records,
    verify_checksum,
)

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
                f"{key} of an episode has shape {array.shape}, expected {length} timesteps"
            )
        dtype = np.float32 if key in FLOATS else np.bool_ if key in FLAGS else array.dtype
        with np.errstate(over="ignore"):
            member = np.ascontiguousarray(array, dtype)
        if member.dtype.kind == "f" and not np.isfinite(member).all():
            raise ValueError(f"{key} of an episode is not finite")
        members[{"cont": "discount"}.get(key, key)] = member
    if not members["is_first"][0]:
        raise ValueError("is_first of an episode is false in its first timestep")
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


FLAGS = ("is_first", "is_last", "is_terminal")
FLOATS = ("action", "reward", "cont")
EPISODE_KEYS = (*FLOATS, *FLAGS)
"""What every episode holds in memory besides its observations."""

Dtypes = Mapping[str, np.dtype]
_ITS_OWN: Dtypes = MappingProxyType({})
_PIECE = 1 << 22  # bytes, about, of what `check` looks at at once

# Any other error, such as too many open files, says nothing about the file. The last three are
# what ext4, XFS and btrfs say where their own checksums do not match.
_FAULTS_OF_THE_FILE = (
    errno.EACCES, errno.EIO, errno.ELOOP, errno.ENOENT, errno.ENXIO, errno.EPERM, errno.ESTALE,
    errno.EBADMSG, errno.ENODATA, errno.EUCLEAN,
)  # fmt: skip


class EpisodeError(Exception):
    """An episode file that cannot be used: damaged, or no episode of this environment."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path_text(path)}: {reason}")
        self.path = path
        self.reason = reason


class EpisodeFile:
    """One episode on disk, opened: its directory and headers are sound, its data unread.

    Args:
        path: The file.

    Attributes:
        path: The file.
        length: Number of timesteps, L.
        checked: Whether `check` has passed.

    Raises:
        EpisodeError: it is damaged, or no episode.
    """

    __slots__ = ("_members", "checked", "length", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checked = False
        with self._open() as fd:
            self._members = read_members(fd)
        self._check_headers()
        self.length = self._members["action"].shape[0]

    @property
    def keys(self) -> tuple[str, ...]:
        """Observation keys, then `action`, `reward`, `cont` and the flags, derived ones too."""
        others = {*EPISODE_KEYS, "discount"}
        return (*(key for key in self._members if key not in others), *EPISODE_KEYS)

    def timestep_spec(self, key: str) -> tuple[tuple[int, ...], np.dtype]:
        """Returns the shape and dtype of one timestep of `key`, as `read` gives it."""
        return self._shape(key), self._dtype(key)

    def sliceable(self, keys: Collection[str]) -> bool:
        """Whether those keys can be read slice by slice; otherwise each read unpacks it all."""
        return all(member.sliceable for member in self._needed(keys))

    def allocate(
        self, length: int, keys: Collection[str], dtypes: Dtypes = _ITS_OWN
    ) -> dict[str, np.ndarray]:
        """Returns uninitialised arrays [length, ...] of the dtypes that `read` gives."""
        wanted = {key: dtypes.get(key, self._dtype(key)) for key in keys}
        return {key: np.empty((length, *self._shape(key)), wanted[key]) for key in keys}

    def read(
        self,
        start: int = 0,
        stop: int | None = None,
        keys: Collection[str] | None = None,
        dtypes: Dtypes = _ITS_OWN,
    ) -> dict[str, np.ndarray]:
        """Returns timesteps start..stop-1 as arrays [stop - start, ...].

        Values are cast to `dtypes`; keys that it lacks have those that `timestep_spec` gives.

        Raises:
            EpisodeError: the data are damaged, or do not fit into memory.
            ValueError: the episode has no such timesteps.
        """
        stop = self.length if stop is None else stop
        with self._within_memory():
            out = self.allocate(max(stop - start, 0), self.keys if keys is None else keys, dtypes)
            self.read_into(out, start, stop)
        return out

    def read_into(self, out: Mapping[str, np.ndarray], start: int, stop: int) -> None:
        """Reads timesteps start..stop-1 of the keys of `out` into its arrays [stop - start, ...].

        Values are cast to the arrays' dtypes. Arrays must be C-contiguous.

        Raises:
            EpisodeError: the data are damaged.
            ValueError: the episode has no such timesteps.
        """
        if not 0 <= start <= stop <= self.length:
            raise ValueError(f"timesteps {start} to {stop} of an episode of {self.length}")
        with self._open() as fd, np.errstate(over="ignore"):
            for key, target in out.items():
                self._read_key(fd, key, start, stop, target)

    def check(self, keys: Collection[str], dtypes: Dtypes = _ITS_OWN) -> None:
        """Reads all data of those keys once: checksums, finite numbers, sensible flags.

        Numbers must be finite as `dtypes`, too: 1e300 is not as float32.

        Raises:
            EpisodeError: the data are damaged, cannot come from an episode, or must be unpacked
                and do not fit into memory.
        """
        with self._open() as fd:
            for member in self._needed(keys):
                if member.sliceable:  # reading any other verifies it anyway
                    verify_checksum(fd, member)
        floats = [key for key in keys if np.issubdtype(self._dtype(key), np.floating)]
        wanted = {*floats, *EPISODE_KEYS}
        timesteps = self._timesteps_of_a_piece(wanted)
        for start in range(0, self.length, timesteps):
            stop = min(start + timesteps, self.length)
            self.check_values(self.read(start, stop, wanted, dtypes), start)
        self.checked = True

    def check_values(self, episode: Mapping[str, np.ndarray], start: int = 0) -> None:
        """Checks the values of the episode from timestep `start` on, as `read` gave them.

        Raises:
            EpisodeError: numbers are not finite, `cont` is no factor, or timestep 0 is not first.
        """
        for key, array in episode.items():
            with self._within_memory():
                finite = array.dtype.kind != "f" or np.isfinite(array).all()
            if not finite:
                raise EpisodeError(self.path, f"{key} holds numbers that are not finite")
        if not ((episode["cont"] >= 0) & (episode["cont"] <= 1)).all():
            raise EpisodeError(self.path, "discount holds numbers outside of 0 to 1")
        if start == 0 and not episode["is_first"][0]:
            raise EpisodeError(self.path, "is_first is false in its first timestep")

    @contextmanager
    def _open(self) -> Iterator[int]:
        """Opens the file; what goes wrong with it becomes an `EpisodeError`."""
        try:
            fd = open_to_read(self.path)
            try:
                yield fd
            finally:
                os.close(fd)
        except NpzError as error:
            raise EpisodeError(self.path, str(error)) from error
        except IrregularFileError as error:
            raise EpisodeError(self.path, str(error.strerror)) from error
        except OSError as error:
            if error.errno not in _FAULTS_OF_THE_FILE:
                raise
            raise EpisodeError(self.path, f"it cannot be read ({error.strerror})") from error

    @contextmanager
    def _within_memory(self) -> Iterator[None]:
        """For reading and judging whole episodes: of one that is too large the file is at fault."""
        try:
            yield
        except MemoryError as error:
            raise EpisodeError(self.path, "it does not fit into memory") from error

    def _timesteps_of_a_piece(self, keys: Collection[str]) -> int:
        """Timesteps whose values of those keys are checked at once; all where each read unpacks it
        all."""
        if not self.sliceable(keys):
            return self.length
        timestep = sum(member.nbytes for member in self._needed(keys)) // self.length
        return max(1, _PIECE // max(1, timestep))

    def _check_headers(self) -> None:
        members = self._members
        missing = [key for key in ("action", "reward") if key not in members]
        if "discount" not in members and "is_terminal" not in members:
            missing.append("discount")
        if missing:
            raise EpisodeError(self.path, f"it lacks {', '.join(missing)}")
        for key in ("action", "reward", "discount", *FLAGS):
            ndim = 2 if key == "action" else 1
            if key in members and len(members[key].shape) != ndim:
                raise EpisodeError(self.path, f"{key} has the shape {members[key].shape}")
        lengths = {name: member.shape[:1] for name, member in members.items()}
        if len(set(lengths.values())) > 1:
            text = ", ".join(f"{name} {shape}" for name, shape in lengths.items())
            raise EpisodeError(self.path, f"its lengths differ: {text}")
        if lengths["action"] == (0,):
            raise EpisodeError(self.path, "it has no timesteps")

    def _needed(self, keys: Collection[str]) -> list[Member]:
        """The members that those keys are read or derived from."""
        names = {_source(key, self._members) for key in keys}
        return [self._members[name] for name in names if name is not None]

    def _shape(self, key: str) -> tuple[int, ...]:
        return self._members[key].shape[1:] if key in self._members else ()

    def _dtype(self, key: str) -> np.dtype:
        if key in FLAGS:
            return np.dtype(np.bool_)
        return np.dtype(np.float32) if key in FLOATS else self._members[key].dtype

    def _read_key(self, fd: int, key: str, start: int, stop: int, out: np.ndarray) -> None:
        source = _source(key, self._members)
        if source is None:
            out[...] = np.arange(start, stop) == (0 if key == "is_first" else self.length - 1)
            return
        member = self._members[source]
        if member.sliceable and member.dtype == out.dtype and out.dtype.kind != "b":
            read_records(fd, member, start, out)
            return
        if member.sliceable:
            raw = np.empty((stop - start, *member.shape[1:]), member.dtype)
            read_records(fd, member, start, raw)
        else:
            raw = read_array(fd, member)[start:stop]
        if source == "is_terminal" and key == "cont":
            out[...] = _truth(raw) == 0
        elif out.dtype.kind == "b":
            out[...] = (raw == 0) if source == "discount" else _truth(raw)
        else:
            out[...] = raw


def _source(key: str, members: Collection[str]) -> str | None:
    """The member that a key is read or derived from; None where its position tells it."""
    if key == "cont":
        return "discount" if "discount" in members else "is_terminal"
    if key == "is_terminal" and key not in members:
        return "discount"
    return None if key in ("is_first", "is_last") and key not in members else key


def _truth(raw: np.ndarray) -> np.ndarray:
    """Booleans of stored flags; a byte other than 0 and 1 must not survive inside a bool."""
    return (raw.view(np.uint8) if raw.dtype.kind == "b" else raw) != 0
