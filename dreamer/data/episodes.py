"""Episode files: one complete episode, one .npz.

Timestep t of an episode is (observation_t, the action that led to it, the reward received on
arriving, flags). A file holds these arrays, all of one length L:

======================  ==========================  ==============================================
array                   dtype and shape             meaning
======================  ==========================  ==============================================
observation keys        any number, [L, ...]        ``image`` uint8 [L, H, W, C] and the like
``action``              float32 [L, A]              zero in the first timestep
``reward``              float32 [L]                 zero in the first timestep
``discount``            float32 [L]                 called `cont` in memory: 0 at a true terminal
``is_first``            bool [L]                    true in timestep 0
``is_last``             bool [L]                    true in the last timestep
``is_terminal``         bool [L]                    true at a true terminal, not at a time limit
======================  ==========================  ==============================================

Our own files are uncompressed, so that a slice is read without the rest. Files of older TF2
implementations load too. They may be compressed, and may hold float16 or float64 in place of
float32. Missing arrays are derived: `is_first` is true in timestep 0 only, `is_last` in the last
timestep only, `is_terminal` where the discount is 0, and `cont` is 1 - `is_terminal`. A file
without both `discount` and `is_terminal` cannot tell a terminal from a time limit and is refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from dreamer.io.arrays import (
    NUMBERS,
    ArchiveError,
    StoredArray,
    read_arrays,
    read_directory,
    read_slice,
    verify_checksums,
    write_arrays,
)
from dreamer.io.files import atomic_write, make_folder, open_to_read, path_text

FLAGS = ("is_first", "is_last", "is_terminal")
_FLOATS = ("action", "reward", "cont")
EPISODE_KEYS = (*_FLOATS, *FLAGS)
"""Keys of every episode in memory, besides its observations."""

Dtypes = Mapping[str, np.dtype]

_NAME = re.compile(r"(?P<timestamp>\d{8}T\d{6}\w*)-(?P<uid>.+)-(?P<length>\d+)\.npz")
_COUNTER = re.compile(r"(?<=\.npz)\.\d+$")  # `move_aside` adds it if a name is taken
OWNER = re.compile(r"[0-9a-f]{8}\.")
"""Start of the unique ids of a run that collects into a folder with other runs."""
_UID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_CHECKED_AT_ONCE = 1 << 22  # bytes, approximately

# Errors that concern the file. Other errors, such as too many open files, say nothing about it.
# ext4, XFS and btrfs raise the last three if their own checksums do not match.
_FILE_ERRORS = (
    errno.EACCES, errno.EIO, errno.ELOOP, errno.ENOENT, errno.ENXIO, errno.EPERM, errno.ESTALE,
    errno.EBADMSG, errno.ENODATA, errno.EUCLEAN,
)  # fmt: skip


class EpisodeError(Exception):
    """An episode file cannot be used: it is damaged, or not an episode of this environment."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path_text(path)}: {reason}")
        self.path = path


class EpisodeFile:
    """An episode of `length` timesteps in the file `path`, whose name has the unique id `uid`.

    Opening it checks the file's directory and headers, and reads no data; it raises EpisodeError
    if the file is damaged, or not an episode. `checked` says whether `check` has passed.
    """

    __slots__ = ("_arrays", "checked", "length", "path", "uid")

    def __init__(self, path: Path) -> None:
        self.path, self.uid = path, episode_uid(path)
        self.checked = False
        with self._open() as fd:
            self._arrays = read_directory(fd)
        if reason := _no_episode({name: array.shape for name, array in self._arrays.items()}):
            raise EpisodeError(path, reason)
        self.length = self._arrays["action"].shape[0]

    @property
    def keys(self) -> tuple[str, ...]:
        """Observation keys, then `action`, `reward`, `cont` and the flags, derived ones too."""
        others = {*EPISODE_KEYS, "discount"}
        return (*(key for key in self._arrays if key not in others), *EPISODE_KEYS)

    def timestep_spec(self, key: str) -> tuple[tuple[int, ...], np.dtype]:
        """Returns the shape and dtype of one timestep of `key`, as `read` returns it."""
        shape = self._arrays[key].shape[1:] if key in self._arrays else ()
        if key in FLAGS:
            return shape, np.dtype(np.bool_)
        return shape, np.dtype(np.float32) if key in _FLOATS else self._arrays[key].dtype

    def sliceable(self, keys: Collection[str]) -> bool:
        """Whether slices of these keys can be read; if not, each read unpacks whole arrays."""
        return all(array.sliceable for array in self._sources(keys))

    def read(
        self, start: int = 0, stop: int | None = None, keys: Collection[str] | None = None,
        dtypes: Dtypes | None = None,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        """Returns timesteps start to stop - 1 as arrays [stop - start, ...].

        Args:
            start, stop: The slice; `stop` is the episode's length if it is left out.
            keys: Keys to read; None: all.
            dtypes: Dtypes to cast to, by key. Other keys have the dtypes of `timestep_spec`.

        Raises:
            EpisodeError: The data are damaged, or do not fit into memory.
            ValueError: The episode has no such timesteps.
        """
        stop = self.length if stop is None else stop
        specs = {key: self.timestep_spec(key) for key in (self.keys if keys is None else keys)}
        with self._errors():
            arrays = {
                key: np.empty((max(stop - start, 0), *shape), (dtypes or {}).get(key, dtype))
                for key, (shape, dtype) in specs.items()
            }
        self.read_into(arrays, start, stop)
        return arrays

    def read_into(self, out: Mapping[str, np.ndarray], start: int, stop: int) -> None:
        """Reads timesteps start to stop - 1 into the arrays [stop - start, ...] of `out`.

        The arrays must be C-contiguous. Values are cast to their dtypes. Raises as `read`.
        """
        if not 0 <= start <= stop <= self.length:
            raise ValueError(f"timesteps {start} to {stop} of an episode of {self.length}")
        with self._open() as fd, np.errstate(over="ignore"):
            for key, target in out.items():
                self._read_key(fd, key, start, stop, target)

    def check(self, keys: Collection[str], dtypes: Dtypes | None = None) -> None:
        """Reads all data of these keys once, and checks checksums and values; raises EpisodeError.

        Numbers must stay finite when they are cast to `dtypes`: 1e300 is infinite as float32.
        """
        with self._open() as fd:
            # Reading an array that is not sliceable verifies its checksum.
            verify_checksums(fd, [array for array in self._sources(keys) if array.sliceable])
        wanted = {*EPISODE_KEYS, *(k for k in keys if self.timestep_spec(k)[1].kind == "f")}
        count = self.length
        if self.sliceable(wanted):
            nbytes = sum(array.nbytes for array in self._sources(wanted))
            count = max(1, _CHECKED_AT_ONCE * self.length // max(1, nbytes))
        for start in range(0, self.length, count):
            stop = min(start + count, self.length)
            self.check_values(self.read(start, stop, wanted, dtypes), start)
        self.checked = True

    def check_values(self, episode: Mapping[str, np.ndarray], start: int = 0) -> None:
        """Raises EpisodeError for values, read from timestep `start` on, that no episode has."""
        with self._errors():
            if reason := _bad_values(episode, start):
                raise EpisodeError(self.path, reason)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns errors that concern the file into `EpisodeError`."""
        try:
            yield
        except ArchiveError as error:
            raise EpisodeError(self.path, str(error)) from error
        except MemoryError as error:
            raise EpisodeError(self.path, "it does not fit into memory") from error
        except OSError as error:
            if error.errno not in _FILE_ERRORS:
                raise
            raise EpisodeError(self.path, f"it cannot be read ({error.strerror})") from error

    @contextlib.contextmanager
    def _open(self) -> Iterator[int]:
        with self._errors(), open(open_to_read(self.path), "rb", buffering=0) as file:
            yield file.fileno()

    def _source(self, key: str) -> str | None:
        """Returns the array that a key is read or derived from; None: its position decides."""
        if key == "cont":
            return "discount" if "discount" in self._arrays else "is_terminal"
        if key in self._arrays or key not in FLAGS:
            return key
        return "discount" if key == "is_terminal" else None

    def _sources(self, keys: Collection[str]) -> list[StoredArray]:
        names = {self._source(key) for key in keys}
        return [self._arrays[name] for name in names if name is not None]

    def _read_key(self, fd: int, key: str, start: int, stop: int, out: np.ndarray) -> None:
        source = self._source(key)
        if source is None:
            out[...] = np.arange(start, stop) == (0 if key == "is_first" else self.length - 1)
            return
        array = self._arrays[source]
        if array.sliceable:
            as_it_is = array.dtype == out.dtype and out.dtype.kind != "b"
            raw = out if as_it_is else np.empty(out.shape, array.dtype)
            read_slice(fd, array, start, raw)
            if as_it_is:
                return
        else:
            [whole] = read_arrays(fd, [array])
            raw = whole[start:stop]
        if raw.dtype.kind == "b":  # bytes other than 0 and 1 must not survive inside a bool
            raw = raw.view(np.uint8) != 0
        derived = source != ("discount" if key == "cont" else key)  # `cont` from `is_terminal`, ...
        out[...] = raw == 0 if derived else raw


def _no_episode(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Returns why arrays of these names and shapes are not an episode; "" if they are."""
    missing = [key for key in ("action", "reward") if key not in shapes]
    if "discount" not in shapes and "is_terminal" not in shapes:
        missing.append("discount")
    if not set(shapes) - {"action", "reward", "discount", *FLAGS}:
        missing.append("any observation")
    if missing:
        return f"it lacks {', '.join(missing)}"
    for key in ("action", "reward", "discount", *FLAGS):
        if key in shapes and len(shapes[key]) != (2 if key == "action" else 1):
            return f"{key} has the shape {shapes[key]}"
    lengths = {name: shape[:1] for name, shape in shapes.items()}
    if len(set(lengths.values())) > 1:
        return f"its lengths differ: {', '.join(f'{name} {n}' for name, n in lengths.items())}"
    return "it has no timesteps" if lengths["action"] == (0,) else ""


def _bad_values(episode: Mapping[str, np.ndarray], start: int = 0) -> str:
    """Returns why no episode has these values of the timesteps from `start` on; "" if one may."""
    for key, array in episode.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"{key} holds numbers that are not finite"
    if not ((episode["cont"] >= 0) & (episode["cont"] <= 1)).all():
        return "discount holds numbers outside of 0 to 1"
    if start == 0 and not episode["is_first"][0]:
        return "is_first is false in its first timestep"
    return ""


def save_episode(
    directory: Path, episode: Mapping[str, np.ndarray], uid: str, timestamp: str | None = None
) -> Path:
    """Writes a complete episode, and returns its path, ``<timestamp>-<uid>-<L>.npz``.

    Args:
        directory: Folder; made if missing.
        episode: Arrays [L, ...]: observations, action, reward, cont and the three flags.
        uid: Unique id, of letters, digits, ``_``, ``.`` and ``-``.
        timestamp: Start of the file's name; None: now. A file of the same name is replaced.

    Raises:
        ValueError: The episode or the id is malformed.
        DiskFullError: The disk is full.
        StorageError: The folder cannot be made or written to.
    """
    if not _UID.fullmatch(uid):
        raise ValueError(f"an episode's uid is made of letters, digits, _ . and -, got {uid!r}")
    if missing := [key for key in EPISODE_KEYS if key not in episode]:
        raise ValueError(f"the episode {uid} lacks {', '.join(missing)}")
    arrays = {}
    for key, value in episode.items():
        dtype = np.float32 if key in _FLOATS else np.bool_ if key in FLAGS else value.dtype
        if value.dtype.kind not in NUMBERS or key == "discount":  # that is cont's name in files
            raise ValueError(f"{key} is no observation of plain numbers, in the episode {uid}")
        with np.errstate(over="ignore"):
            arrays["discount" if key == "cont" else key] = value.astype(dtype, copy=False)
    reason = _no_episode({name: array.shape for name, array in arrays.items()})
    reason = reason or _bad_values({**arrays, "cont": arrays["discount"]})
    if reason:
        raise ValueError(f"cannot save the episode {uid}: {reason}")
    length = len(arrays["action"])
    path = directory / f"{timestamp or time.strftime('%Y%m%dT%H%M%S')}-{uid}-{length}.npz"
    make_folder(directory)
    # Headers and entries in the directory take at most 512 bytes an array.
    with atomic_write(path, sum(array.nbytes + 512 for array in arrays.values())) as file:
        write_arrays(file, arrays)
    return path


def episode_uid(path: Path) -> str:
    """Returns the unique id in the name of an episode file; of a foreign name, its stem."""
    match = _NAME.fullmatch(path.name)
    return match["uid"] if match else path.stem


def move_aside(path: Path, folder: Path) -> str:
    """Moves a file of any kind into `folder`, beside it, under a name that is free there.

    Returns what happened, in words: the file was moved, or stays where it is.
    """
    target, count = folder / path.name, 0
    try:
        folder.mkdir(exist_ok=True)
        if folder.is_symlink():  # in a run from a stranger it may lead anywhere
            return f"it stays where it is ({path_text(folder)} is a link)"
        while os.path.lexists(target):
            count += 1
            target = folder / f"{path.name}.{count}"
        path.rename(target)
    except OSError as error:
        return f"it stays where it is ({error.strerror})"
    return f"moved to {path_text(target)}"


def moved_aside(folder: Path) -> list[str]:
    """Returns the unique ids of the episodes that `move_aside` has moved into `folder`."""
    names = (_COUNTER.sub("", path.name) for path in folder.glob("*.npz*"))
    return sorted({episode_uid(folder / name) for name in names})
