"""Replay: how long sampling a batch takes, and whether adding episodes takes memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from dreamer.benchmarks.sampling import random_timesteps
from dreamer.benchmarks.service import resident_bytes
from dreamer.config.config import Config
from dreamer.data.replay import Replay
from dreamer.envs.spec import Space, spaces_from_json
from dreamer.errors import UserError


class ReplayService:
    """A replay of random episodes.

    Args:
        values: The config, by dotted name.
        spaces: Observation and action space, as `spaces_from_json` reads them.
        directory: An empty folder, which the caller removes.
    """

    def __init__(self, values: dict[str, Any], spaces: Mapping[str, Any], directory: str) -> None:
        config = Config(values)
        self._batch_shape = config.train.batch_size, config.train.batch_length
        self._obs_space, self._act_space = spaces_from_json(spaces)
        self._replay = Replay(
            Path(directory), cache_bytes=config.replay.cache_bytes, seed=config.seed,
            obs_space=self._obs_space, act_space=self._act_space,
        )  # fmt: skip
        self._episodes = self._batches = 0

    def add(self, episodes: int, length: int) -> dict[str, int]:
        """Adds episodes, and samples a batch after every tenth.

        Returns:
            growth_bytes: Increase of the memory in RAM; added_bytes: Size of the episodes;
            resident_bytes: Memory in RAM at the end; episodes.
        """
        before, added = resident_bytes(), 0
        for number in range(episodes):
            episode = random_timesteps(
                self._obs_space, self._act_space, (length,), self._episodes
            )
            self._replay.add(episode, f"benchmark{self._episodes}")
            self._episodes += 1
            added += sum(array.nbytes for array in episode.values())
            if number % 10 == 0:
                self.sample(1)
        after = resident_bytes()
        return {
            "episodes": episodes, "growth_bytes": after - before, "added_bytes": added,
            "resident_bytes": after,
        }  # fmt: skip

    def sample(self, count: int) -> float:
        """Samples batches as training does and returns the seconds."""
        start = perf_counter()
        for _ in range(count):
            self._replay.sample(self._batches, *self._batch_shape)
            self._batches += 1
        return perf_counter() - start


@contextmanager
def episodes_folder(
    obs_space: Mapping[str, Space], act_space: Space, episodes: int, length: int
) -> Iterator[Path]:
    """A temporary folder, below TMPDIR, on a disk with room for so many episodes.

    Raises:
        UserError: The disk has too little room.
    """
    timestep = random_timesteps(obs_space, act_space, (1,), seed=0)
    needed = int(1.1 * episodes * length * sum(array.nbytes for array in timestep.values()))
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < needed:
        raise UserError(
            f"{tempfile.gettempdir()} has {free / 1e9:.1f} GB free, and the benchmark's episodes "
            f"take {needed / 1e9:.1f} GB: set TMPDIR to a folder with more room, or choose other "
            "--parts"
        )
    with tempfile.TemporaryDirectory(prefix="dreamer_benchmark_") as folder:
        yield Path(folder)
