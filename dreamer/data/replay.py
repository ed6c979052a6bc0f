"""Replay: the episodes of a folder, sampled as batches [B, T].

What lies where was chosen by measurement (2-core CPU, 50 x 50 timesteps of 64x64x3 out of 220
episodes of 501): a slice of our own uncompressed files is read straight into the batch, one read a
member, in 8 ms a batch. From arrays held in memory it takes 4.5 and from mapped files 5.5 ms, but
those hold memory without bound or die when a file is cut short, and all are far below an update.
The operating system's page cache keeps what fits. Files of older implementations are compressed:
unpacking one whole takes 130 ms, so they stay unpacked, the least recently used leaving first,
within `cache_bytes`. Opening 10,000 episodes reads their headers alone, in about 2 s.
"""

from __future__ import annotations

import bisect
import math
import threading
import warnings
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dreamer.data.episodes import (
    FLAGS,
    EpisodeError,
    EpisodeFile,
    episode_uid,
    move_aside,
    moved_aside,
    save_episode,
)
from dreamer.data.prefetch import Prefetcher
from dreamer.errors import UserError
from dreamer.io.files import make_folder
from dreamer.io.npz import path_text

if TYPE_CHECKING:
    from dreamer.envs.spec import Space
if TYPE_CHECKING:
    from dreamer.envs.spec import Space

Batch = dict[str, np.ndarray]
DAMAGED = "damaged"
"""Folder, within the replay's, that takes the files which cannot be used."""


class DamagedEpisodeWarning(UserWarning):
    """An episode file was set aside; the message names it and the reason."""


class Replay:
    """Episodes in a folder, and batches drawn from them.

    All headers are read at the start; the data of a file are verified (checksums, finite numbers)
    when it is first sampled. A file that is damaged or of another environment is moved to
    ``damaged/``, counted and named in a `DamagedEpisodeWarning`; nothing is ever deleted.

    Args:
        directory: Folder of the episode files; made if missing.
        cache_bytes: Memory that unpacked episodes of older, compressed files may take.
        seed: Of the sampling.
        obs_space: The observation keys that batches hold, with their shapes and dtypes.
        act_space: Shape [A] of the action.

    Attributes:
        timesteps: Number of timesteps in all episodes.
        damaged: Number of files set aside.

    Raises:
        UserError: the folder cannot be made or read.
    """

    def __init__(
        self, directory: Path | str, *, cache_bytes: float, seed: int,
        obs_space: Mapping[str, Space], act_space: Space,
    ) -> None:  # fmt: skip
        self.directory = Path(directory)
        self.timesteps = 0
        self.damaged = 0
        self._seed = seed
        self._layout = layout_of(obs_space, act_space)
        self._dtypes = {key: dtype for key, (_, dtype) in self._layout.items()}
        self._files: list[EpisodeFile] = []
        self._hidden: dict[str, list[Path]] = {}
        self._cache = ByteCache(int(cache_bytes))
        self._lock = threading.RLock()
        make_folder(self.directory)
        self._scan()

    def __len__(self) -> int:
        return len(self._files)

    @property
    def members(self) -> list[str]:
        """Names of the files that batches are drawn from, in the order that sampling knows."""
        return [file.path.name for file in self._files]

    @property
    def timestep_bytes(self) -> int:
        """Bytes that one timestep takes on disk."""
        return timestep_bytes(self._layout)

    def files(self) -> list[tuple[Path, int]]:
        """Path and timesteps of every file that batches are drawn from."""
        return [(file.path, file.length) for file in self._files]

    def set_aside(self) -> list[str]:
        """Unique ids of the episodes in ``damaged/``, of this and of earlier processes."""
        return moved_aside(self.directory / DAMAGED)

    def restrict(self, members: Iterable[str]) -> set[str]:
        """Draws from the files of these names alone, so that a resumed run draws as it did.

        The others stay on disk, hidden until `take_in` replaces them; unless one of `members`
        is missing: then nothing changes.

        Returns:
            The names that are missing.
        """
        wanted = set(members)
        missing = wanted - set(self.members)
        if missing:
            return missing
        with self._lock:
            for file in [file for file in self._files if file.path.name not in wanted]:
                self._forget(file)
                self._hidden.setdefault(episode_uid(file.path), []).append(file.path)
        return set()

    def add(self, episode: Mapping[str, np.ndarray], uid: str) -> Path:
        """Writes an episode to disk and takes it in: `write`, whose errors it raises, `take_in`."""
        with self._lock:
            file = self.write(episode, uid)
            self.take_in(file)
            return file.path

    def write(self, episode: Mapping[str, np.ndarray], uid: str) -> EpisodeFile:
        """Writes an episode to disk; no batch is drawn from it before `take_in`.

        The file keeps the timestamp of an earlier one of the same `uid`, so that equal content
        leaves the folder as it was.

        Args:
            episode: Arrays [L, ...]: observations, action, reward, cont and flags.
            uid: Unique id; see `dreamer.data.episodes.save_episode`.

        Raises:
            ValueError: the episode does not match the environment's spaces, or is malformed.
            DiskFullError: there is no room for it.
            StorageError: the folder cannot be written.
        """
        found = {key: (v.shape[1:], v.dtype) for key, v in episode.items()}
        reason = mismatch(self._layout, found)
        if reason:
            raise ValueError(f"cannot take in the episode {uid}: {reason}")
        with self._lock:
            before = [*self._hidden.get(uid, ()), *(file.path for file in self._files_of(uid))]
        stamp = before[-1].name.partition("-")[0] if before else None
        file = EpisodeFile(save_episode(self.directory, episode, uid, stamp))
        # We have just written it, finite; as another dtype it may not be.
        same = (file.timestep_spec(key)[1] == dtype for key, dtype in self._dtypes.items())
        file.checked = all(same)
        return file

    def take_in(self, file: EpisodeFile) -> None:
        """Takes in what `write` gave, in place of an earlier one of its id, or a hidden one."""
        with self._lock:
            uid = episode_uid(file.path)
            files = self._files_of(uid)
            for old in (*self._hidden.pop(uid, ()), *(earlier.path for earlier in files)):
                if old != file.path:
                    old.unlink(missing_ok=True)
            for earlier in files:
                self._forget(earlier)
            # Ordered by id, so that sampling does not depend on when an episode was written.
            bisect.insort(self._files, file, key=_order)
            self.timesteps += file.length

    def sample(self, index: int, batch_size: int, length: int) -> Batch:
        """Draws one batch: a function of (seed, index, the episodes present).

        Each sequence draws an episode, all being equally likely, then one of its L - T + 1 starts.
        An episode shorter than T is used whole, and the sequence goes on with a further drawn
        episode from its start, where `is_first` is true: nothing is dropped.

        Args:
            index: Number of the batch; equal indices give equal batches.
            batch_size: B.
            length: T.

        Returns:
            Arrays [B, T, ...]: observations in the spaces' dtypes, action float32 [B, T, A], reward
            and cont float32 [B, T], is_first, is_last and is_terminal bool [B, T].

        Raises:
            UserError: there is no episode to sample.
        """
        with self._lock:
            while True:
                try:
                    return self._draw(index, batch_size, length)
                except EpisodeError as error:
                    self._set_aside(error)

    def batches(
        self, first: int, count: int, batch_size: int, length: int, prefetch: int
    ) -> Prefetcher[Batch]:
        """Iterates over ``sample(first)`` to ``sample(first + count - 1)``, prepared by a thread.

        Add no episode meanwhile, or the batches depend on how far ahead the thread was. Errors in
        the thread are raised here; closing the iterator ends the thread.

        Args:
            first: Index of the first batch.
            count: Number of batches.
            batch_size: B.
            length: T.
            prefetch: Batches that wait at most.
        """
        indices = range(first, first + count)
        return Prefetcher(lambda index: self.sample(index, batch_size, length), indices, prefetch)

    def _scan(self) -> None:
        try:
            paths = [path for path in self.directory.iterdir() if _is_candidate(path)]
        except OSError as error:
            raise UserError(
                f"cannot read the folder {path_text(self.directory)}: {error.strerror}"
            ) from error
        for path in sorted(paths, key=str):
            try:
                self._files.append(self._open(path))
            except EpisodeError as error:
                self._set_aside(error)
        self._files.sort(key=_order)
        self.timesteps = sum(file.length for file in self._files)

    def _open(self, path: Path) -> EpisodeFile:
        """Opens an episode and compares it with the environment's spaces."""
        file = EpisodeFile(path)
        reason = mismatch(self._layout, {key: file.timestep_spec(key) for key in file.keys})
        if reason:
            raise EpisodeError(path, reason)
        return file

    def _files_of(self, uid: str) -> list[EpisodeFile]:
        ends = [(uid, ""), (uid + "\0", "")]  # the latter comes next after all of that id
        first, last = (bisect.bisect_left(self._files, end, key=_order) for end in ends)
        return self._files[first:last]

    def _forget(self, file: EpisodeFile) -> None:
        self._files.remove(file)
        self.timesteps -= file.length
        self._cache.drop(file.path)

    def _set_aside(self, error: EpisodeError) -> None:
        for file in [file for file in self._files if file.path == error.path]:
            self._forget(file)
        self.damaged += 1
        outcome = move_aside(error.path, self.directory / DAMAGED)
        warnings.warn(f"episode set aside: {error}; {outcome}", DamagedEpisodeWarning, stacklevel=2)

    def _draw(self, index: int, batch_size: int, length: int) -> Batch:
        shapes = self._layout.items()
        batch = {key: np.empty((batch_size, length, *shape), of) for key, (shape, of) in shapes}
        for piece in self._plan(index, batch_size, length):
            into = piece.row, slice(piece.at, piece.at + piece.stop - piece.start)
            self._read(piece, {key: array[into] for key, array in batch.items()})
        return batch

    def _plan(self, index: int, batch_size: int, length: int) -> list[Piece]:
        if not self._files:
            raise UserError(
                f"{path_text(self.directory)} holds no episode to train on "
                f"({self.damaged} were damaged); collect some first (train.prefill)"
            )
        rng = np.random.default_rng([self._seed, index])
        return plan_batch(self._files, rng, batch_size, length)

    def _read(self, piece: Piece, out: Mapping[str, np.ndarray]) -> None:
        file = piece.file
        if file.sliceable(self._layout):
            if not file.checked:
                file.check(self._layout, self._dtypes)
            file.read_into(out, piece.start, piece.stop)
            return
        episode = self._cache.get(file.path)
        if episode is None:
            episode = file.read(keys=self._layout, dtypes=self._dtypes)
            file.check_values(episode)
            self._cache.put(file.path, episode)
        for key, target in out.items():
            target[...] = episode[key][piece.start : piece.stop]


def _order(file: EpisodeFile) -> tuple[str, str]:
    return episode_uid(file.path), file.path.name


def _is_candidate(path: Path) -> bool:
    return path.suffix == ".npz" and not path.name.startswith(".")


Layout = Mapping[str, tuple[tuple[int, ...], np.dtype]]


def layout_of(obs_space: Mapping[str, Space], act_space: Space) -> Layout:
    """The layout that an environment's spaces ask for."""
    scalars = {"reward": np.float32, "cont": np.float32, **dict.fromkeys(FLAGS, np.bool_)}
    return {
        **{key: (space.shape, np.dtype(space.dtype)) for key, space in obs_space.items()},
        "action": (act_space.shape, np.dtype(np.float32)),
        **{key: ((), np.dtype(dtype)) for key, dtype in scalars.items()},
    }


def mismatch(layout: Layout, found: Layout) -> str:
    """Returns how an episode's timesteps differ from the layout, or ""; floats may vary in size."""
    for key, (shape, dtype) in layout.items():
        if key not in found:
            return f"it lacks the environment's {key}"
        its_shape, its = found[key]
        if its_shape != shape or (its != dtype and not its.kind == dtype.kind == "f"):
            return f"{key} is {its} {its_shape}, the environment's {dtype} {shape}"
    return ""


def timestep_bytes(layout: Layout) -> int:
    """Bytes of one timestep."""
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in layout.values())


@dataclass(frozen=True, slots=True)
class Piece:
    """Timesteps start..stop-1 of an episode, which go to row `row` of a batch from `at` on."""

    row: int
    at: int
    file: EpisodeFile
    start: int
    stop: int


def plan_batch(
    files: Sequence[EpisodeFile], rng: np.random.Generator, batch_size: int, length: int
) -> list[Piece]:
    """Draws the pieces of a batch [batch_size, length]; see `dreamer.data.replay.Replay.sample`."""
    pieces = []
    for row in range(batch_size):
        at = 0
        while at < length:
            file = files[int(rng.integers(len(files)))]
            start = 0
            if at == 0 and file.length > length:
                start = int(rng.integers(file.length - length + 1))
            stop = min(start + length - at, file.length)
            pieces.append(Piece(row, at, file, start, stop))
            at += stop - start
    return pieces


Arrays = Mapping[str, np.ndarray]


class ByteCache:
    """Named arrays under keys, up to a number of bytes; the least recently used leave first.

    Args:
        limit: Bytes of all arrays held together. What alone exceeds it is not kept.

    Attributes:
        nbytes: Bytes held now.
    """

    def __init__(self, limit: int) -> None:
        self.nbytes = 0
        self._limit = limit
        self._items: OrderedDict[Hashable, Arrays] = OrderedDict()

    def get(self, key: Hashable) -> Arrays | None:
        """Returns what is held under `key`, or None."""
        if key in self._items:
            self._items.move_to_end(key)
        return self._items.get(key)

    def put(self, key: Hashable, item: Arrays) -> None:
        """Holds `item`, in place of what `key` held, and drops others where it needs the room."""
        self.drop(key)
        if _nbytes(item) > self._limit:
            return
        self._items[key] = item
        self.nbytes += _nbytes(item)
        while self.nbytes > self._limit:
            self.nbytes -= _nbytes(self._items.popitem(last=False)[1])

    def drop(self, key: Hashable) -> None:
        """Forgets `key`, if it is held."""
        self.nbytes -= _nbytes(self._items.pop(key, {}))


def _nbytes(item: Arrays) -> int:
    return sum(array.nbytes for array in item.values())
