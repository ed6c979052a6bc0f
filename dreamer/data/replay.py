"""Replay: the episodes in a folder, sampled as batches [B, T].

Slices of our own uncompressed files are read straight into the batch, one read per array: 8 ms for
50 x 50 timesteps of 64x64x3 on a 2-core CPU. This holds nothing in memory, and is far faster than
an update. The operating system's page cache keeps what fits. Files of older implementations are
compressed, and unpacking one takes 130 ms, so unpacked episodes stay in memory, up to
`cache_bytes`. Opening 10,000 episodes reads only their headers, in about 5 s.
"""

from __future__ import annotations

import bisect
import math
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dreamer.data.episodes import (
    FLAGS,
    OWNER,
    EpisodeError,
    EpisodeFile,
    episode_uid,
    move_aside,
    moved_aside,
    save_episode,
)
from dreamer.data.latent_memory import LatentMemory, Piece
from dreamer.errors import UserError
from dreamer.io.files import make_folder, path_text

if TYPE_CHECKING:
    from dreamer.envs.spec import Space

Batch = dict[str, np.ndarray]
Pieces = list[list[Piece]]  # of each sequence of a batch
Layout = Mapping[str, tuple[tuple[int, ...], np.dtype]]
"""Shape and dtype of one timestep of each key."""

_DAMAGED = "damaged"  # folder, within the replay's, of the files that cannot be used


class DamagedEpisodeWarning(UserWarning):
    """An episode file is damaged and left out; the message names it, the reason, and its place."""


class Replay:
    """Episodes in a folder, and batches drawn from them.

    All headers are read at the start. A file's data are verified (checksums, finite numbers) when
    they are first sampled. A damaged file is left out, counted, and named in a
    `DamagedEpisodeWarning`; if this run wrote it, it is moved to ``damaged/``. Sound episodes of
    another environment are left out, too, and stay where they are. Nothing is deleted.

    Args:
        directory: Folder of the episode files; made if missing.
        cache_bytes: Memory for unpacked episodes of older, compressed files.
        seed: Seed of the sampling.
        obs_space: Spaces of the observation keys that batches hold.
        act_space: Space of the action, of shape [A].
        owner: Start of the ids of this run's files, if other runs write into `directory`, too; ""
            if it is the run's own folder.
        others: Folders of other runs, whose episodes are only read.
        sampling: What is drawn with equal probability: "episodes" or "timesteps"; see `sample`.
        latents: Holds the latent states of timesteps; None: sequences come without a state.

    Attributes:
        files: The files that batches are drawn from, in the order of the sampling.
        damaged: Number of damaged files that this object has found.
        left: How many of them were not moved, because another run wrote them.

    Raises:
        UserError: A folder cannot be made or read, or all episodes are of another environment.
    """

    def __init__(
        self, directory: Path | str, *, cache_bytes: float, seed: int,
        obs_space: Mapping[str, Space], act_space: Space, owner: str = "",
        others: Sequence[Path] = (), sampling: str = "episodes",
        latents: LatentMemory | None = None,
    ) -> None:  # fmt: skip
        self._sampling, self._latents = sampling, latents
        self._ends: np.ndarray | None = None  # cumulative lengths of `files`
        self.directory = Path(directory)
        self._owner = owner
        self.files: list[EpisodeFile] = []  # ordered by `_order`
        self.damaged = self.left = 0
        self._seed = seed
        self._layout = _layout_of(obs_space, act_space)
        self._dtypes = {key: dtype for key, (_, dtype) in self._layout.items()}
        self._hidden: list[EpisodeFile] = []  # see `restrict`
        self._cache: dict[Path, Batch] = {}  # unpacked episodes, the least recently used one first
        self._cache_limit, self._cached = cache_bytes, 0  # bytes
        self._lock = threading.RLock()
        make_folder(self.directory)
        self._scan([self.directory, *others])

    def __len__(self) -> int:
        return len(self.files)

    @property
    def members(self) -> list[str]:
        """Names of `files`."""
        return [file.path.name for file in self.files]

    def set_aside(self) -> list[str]:
        """Returns the unique ids of all episodes in ``damaged/``, of earlier processes too."""
        return moved_aside(self.directory / _DAMAGED)

    def restrict(self, members: Iterable[str]) -> set[str]:
        """Draws only from the files of these names, so that a resumed run draws as before.

        Other files stay on disk, hidden until `take_in` replaces them. If one of `members` is
        missing, nothing changes. Returns the names that are missing.
        """
        wanted = set(members)
        missing = wanted - set(self.members)
        if not missing:
            with self._lock:
                self._hidden += [file for file in self.files if file.path.name not in wanted]
                self.files = [file for file in self.files if file.path.name in wanted]
                self._ends = None
        return missing

    def add(self, episode: Mapping[str, np.ndarray], uid: str) -> Path:
        """Writes an episode to disk and takes it in: `write`, then `take_in`."""
        file = self.write(episode, uid)
        self.take_in(file)
        return file.path

    def write(self, episode: Mapping[str, np.ndarray], uid: str) -> EpisodeFile:
        """Writes an episode to disk; no batch is drawn from it before `take_in`.

        The file keeps the timestamp of an earlier file of the same `uid`. Writing equal content
        again therefore leaves the folder unchanged. Raises as `save_episode`; ValueError also if
        the episode does not match the environment's spaces.
        """
        found = {key: (value.shape[1:], value.dtype) for key, value in episode.items()}
        if reason := _mismatch(self._layout, found):
            raise ValueError(f"cannot take in the episode {uid}: {reason}")
        earlier = self._files_of(uid)
        timestamp = earlier[-1].path.name.partition("-")[0] if earlier else None
        file = EpisodeFile(save_episode(self.directory, episode, uid, timestamp))
        # The numbers just written are finite. Cast to another dtype they may not be.
        file.checked = all(file.timestep_spec(k)[1] == dtype for k, dtype in self._dtypes.items())
        return file

    def take_in(self, file: EpisodeFile) -> None:
        """Takes in what `write` returned, in place of earlier or hidden files of the same id."""
        with self._lock:
            for old in self._files_of(file.uid):
                if old.path != file.path:
                    old.path.unlink(missing_ok=True)
                self.take_out(old)
            # Ordered by id, so that the sampling does not depend on when episodes were written.
            bisect.insort(self.files, file, key=_order)
            self._ends = None

    def take_out(self, file: EpisodeFile) -> None:
        """Draws no more batches from a file, which stays on disk; its latent states are lost."""
        with self._lock:
            self._forget(file)
            if self._latents:
                self._latents.forget(file.path)

    def sample(self, index: int, batch_size: int, length: int) -> Batch:
        """Draws one batch, as a function of the seed, the index and the episodes present.

        Each sequence draws one of all episodes uniformly, and then one of its L - T + 1 starts. An
        episode shorter than T is used whole. The sequence then continues with the start of another
        drawn episode, where `is_first` is true, so that no timestep is dropped.

        So the first and the last timesteps of an episode are drawn up to T times less often than
        those in the middle, and the timesteps of short episodes more often. With ``sampling``
        "timesteps" a sequence starts at any timestep, all with equal probability, and continues
        with the next episode (after the last one, the first): all timesteps are drawn alike.

        Returns:
            Arrays [B, T, ...]: observations in the spaces' dtypes, action float32 [B, T, A], reward
            and cont float32 [B, T], is_first, is_last and is_terminal bool [B, T]. B is
            `batch_size`, T is `length`. UserError if there is no episode.
        """
        return self.draw(index, batch_size, length)[0]

    def draw(self, index: int, batch_size: int, length: int) -> tuple[Batch, Pieces]:
        """Returns a batch, and the pieces of episodes that its sequences consist of."""
        with self._lock:
            while True:
                try:
                    return self._assemble(index, batch_size, length)
                except EpisodeError as error:
                    self._set_aside(error)

    def batches(
        self, first: int, count: int, batch_size: int, length: int, prefetch: int,
        found: Callable[[], np.ndarray] | None = None,
    ) -> Generator[Batch, None, None]:  # fmt: skip
        """Yields ``sample(first)`` to ``sample(first + count - 1)``, prepared by a thread.

        At most `prefetch` batches wait, and one more is being made. Add no episode meanwhile: the
        batches would depend on how far ahead the thread is. Errors in the thread are raised here.
        Closing or dropping the generator ends the thread.

        With `latents` each batch also has "latent", float32 [B, F], the states before its
        sequences. They are looked up when the batch is yielded, not when it is prepared, so they
        are the newest ones, and do not depend on how far ahead the thread is. `found` returns the
        states [B, T, F] of the batch that was yielded last; they are stored before the next one.
        """
        indices = iter(range(first, first + count))
        pool = ThreadPoolExecutor(1, "prefetch")
        try:
            drawn = deque(
                pool.submit(self.draw, index, batch_size, length)
                for index in islice(indices, max(prefetch, 1) + 1)
            )
            while drawn:
                batch, sequences = drawn.popleft().result()
                for index in islice(indices, 1):
                    drawn.append(pool.submit(self.draw, index, batch_size, length))
                if self._latents:
                    batch["latent"] = self._latents.before(sequences)
                yield batch
                if self._latents and found:
                    self._latents.store(sequences, found())
        finally:
            pool.shutdown(cancel_futures=True)

    def _scan(self, folders: Iterable[Path]) -> None:
        unfit = []  # messages about sound episodes of another environment
        for path in (path for folder in folders for path in _npz_files(folder)):
            try:
                file = EpisodeFile(path)
                found = {key: file.timestep_spec(key) for key in file.keys}
                if reason := _mismatch(self._layout, found):
                    unfit.append(f"{path_text(path)} is of another environment: {reason}")
                else:
                    self.files.append(file)
            except EpisodeError as error:
                self._set_aside(error)
        self.files.sort(key=_order)
        if unfit and not self.files:
            raise UserError(
                f"{unfit[0]} ({len(unfit)} such episodes, none that fits); nothing was changed. "
                "Use episodes of this task with the same observations (envs.*) and actions, or "
                "another --replay.directory, --method or --logdir"
            )
        if unfit:
            warnings.warn(f"{len(unfit)} episodes left out, the first because {unfit[0]}; they "
                          "stay where they are", stacklevel=3)  # fmt: skip

    def _files_of(self, uid: str) -> list[EpisodeFile]:
        with self._lock:
            files = [file for file in (*self._hidden, *self.files) if file.uid == uid]
            return [file for file in files if file.path.parent == self.directory]

    def _forget(self, file: EpisodeFile) -> None:
        (self.files if file in self.files else self._hidden).remove(file)
        self._ends = None
        self._drop(file.path)

    def _set_aside(self, error: EpisodeError) -> None:
        for file in [file for file in self.files if file.path == error.path]:
            self._forget(file)
        self.damaged += 1
        if self._is_ours(error.path):
            outcome = move_aside(error.path, self.directory / _DAMAGED)
        else:
            self.left += 1
            outcome = "it stays where it is, because this run did not write it"
        warnings.warn(f"episode set aside: {error}; {outcome}", DamagedEpisodeWarning, stacklevel=2)

    def _is_ours(self, path: Path) -> bool:
        """Whether this run may move a file. Of another run's files, it may move none."""
        uid = episode_uid(path)
        ours = uid.startswith(self._owner) if self._owner else not OWNER.match(uid)
        return ours and path.parent == self.directory

    def _assemble(self, index: int, batch_size: int, length: int) -> tuple[Batch, Pieces]:
        if not self.files:
            raise UserError(
                f"{path_text(self.directory)} holds no episode to train on "
                f"({self.damaged} were damaged); collect some first (train.prefill)"
            )
        batch = {
            key: np.empty((batch_size, length, *shape), dtype)
            for key, (shape, dtype) in self._layout.items()
        }
        rng = np.random.default_rng([self._seed, index])
        sequences: Pieces = []
        for row in range(batch_size):
            at = 0
            sequences.append([])
            for file, start in self._pieces(rng, length):
                stop = min(start + length - at, file.length)
                place = row, slice(at, at + stop - start)
                self._read(file, start, stop, {key: array[place] for key, array in batch.items()})
                sequences[-1].append((file, start, stop))
                at += stop - start
                if at == length:
                    break
        return batch, sequences

    def _pieces(
        self, rng: np.random.Generator, length: int
    ) -> Generator[tuple[EpisodeFile, int], None, None]:
        """Yields episodes without end, with the first timestep to take of each; see `sample`."""
        if self._sampling == "timesteps":
            if self._ends is None:
                self._ends = np.cumsum([file.length for file in self.files])
            first = int(rng.integers(self._ends[-1]))
            number = int(np.searchsorted(self._ends, first, "right"))
            yield self.files[number], first - int(self._ends[number]) + self.files[number].length
            while True:
                number = (number + 1) % len(self.files)
                yield self.files[number], 0
        start = None
        while True:
            file = self.files[int(rng.integers(len(self.files)))]
            longer = start is None and file.length > length
            start = int(rng.integers(file.length - length + 1)) if longer else 0
            yield file, start

    def _read(
        self, file: EpisodeFile, start: int, stop: int, out: Mapping[str, np.ndarray]
    ) -> None:
        if file.sliceable(self._layout):
            if not file.checked:
                file.check(self._layout, self._dtypes)
            file.read_into(out, start, stop)
            return
        episode = self._unpacked(file)
        for key, target in out.items():
            target[...] = episode[key][start:stop]

    def _unpacked(self, file: EpisodeFile) -> Batch:
        """Returns a whole episode, from the cache if possible."""
        episode = self._cache.get(file.path)
        self._drop(file.path)
        if episode is None:
            episode = file.read(keys=self._layout, dtypes=self._dtypes)
            file.check_values(episode)
        if _nbytes(episode) <= self._cache_limit:
            self._cache[file.path] = episode  # the newest one is the last
            self._cached += _nbytes(episode)
        while self._cached > self._cache_limit:
            self._drop(next(iter(self._cache)))
        return episode

    def _drop(self, path: Path) -> None:
        self._cached -= _nbytes(self._cache.pop(path, {}))


def _npz_files(folder: Path) -> list[Path]:
    """Returns the paths of a folder's .npz files, sorted; UserError if it cannot be read."""
    try:
        paths = sorted(folder.iterdir(), key=str)
    except OSError as error:
        text = path_text(folder)
        raise UserError(f"cannot read the folder {text}: {error.strerror}") from error
    return [path for path in paths if path.suffix == ".npz" and not path.name.startswith(".")]


def _nbytes(episode: Batch) -> int:
    return sum(array.nbytes for array in episode.values())


def _layout_of(obs_space: Mapping[str, Space], act_space: Space) -> Layout:
    """Returns the layout of the timesteps of an environment with these spaces."""
    scalars = {"reward": np.float32, "cont": np.float32, **dict.fromkeys(FLAGS, np.bool_)}
    return {
        **{key: (space.shape, np.dtype(space.dtype)) for key, space in obs_space.items()},
        "action": (act_space.shape, np.dtype(np.float32)),
        **{key: ((), np.dtype(dtype)) for key, dtype in scalars.items()},
    }


def timestep_bytes(obs_space: Mapping[str, Space], act_space: Space) -> int:
    """Returns the bytes of one timestep in memory and on disk."""
    layout = _layout_of(obs_space, act_space)
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in layout.values())


def _mismatch(layout: Layout, found: Layout) -> str:
    """Returns how timesteps differ from the layout, or ""; floats may have any size."""
    for key, (shape, dtype) in layout.items():
        if key not in found:
            return f"it lacks the environment's {key}"
        its_shape, its_dtype = found[key]
        both_floats = its_dtype.kind == dtype.kind == "f"
        if its_shape != shape or (its_dtype != dtype and not both_floats):
            return f"{key} is {its_dtype} {its_shape}, the environment's {dtype} {shape}"
    return ""


def _order(file: EpisodeFile) -> tuple[str, str]:
    return file.uid, file.path.name
