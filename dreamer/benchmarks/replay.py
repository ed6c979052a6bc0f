"""Replay: how long a batch takes to draw, and whether memory stays flat while episodes come in."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from dreamer.benchmarks.helper import resident_bytes
from dreamer.benchmarks.synthetic import random_episode
from dreamer.config.config import Config
from dreamer.data.replay import Replay
from dreamer.envs.spec import Space
from dreamer.errors import UserError

Spaces = tuple[Mapping[str, Space], Space]


class Sampling:
    """Draws batches of the config's size from episodes on disk.

    Args:
        config: Its replay and train sections.
        spaces: obs_space and act_space.
        episodes: How many.
        length: Timesteps of each.

    Raises:
        UserError: There is no room for the episodes.
    """

    def __init__(self, config: Config, spaces: Spaces, episodes: int, length: int) -> None:
        self._shape = config.train.batch_size, config.train.batch_length
        self._index = 0
        self._stack = ExitStack()
        folder = self._stack.enter_context(scratch(spaces, episodes, length))
        self._replay = _open(config, spaces, folder)
        rng = np.random.default_rng(0)
        for number in range(episodes):
            self._replay.add(random_episode(*spaces, length, rng), f"benchmark{number}")

    def sample(self, count: int) -> float:
        """Draws batches as the trainer's thread does; returns the seconds."""
        start = perf_counter()
        for _ in range(count):
            self._replay.sample(self._index, *self._shape)
            self._index += 1
        return perf_counter() - start

    def __enter__(self) -> Sampling:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class GrowthService:
    """Adds episodes to a replay in a process of its own, drawing batches meanwhile.

    Args:
        values: The config, by dotted name.
        obs_space, act_space: `Space.to_json` of the environment's.
    """

    def __init__(self, values: dict[str, Any], obs_space: Mapping[str, Any], act_space: Any):
        self._config = Config(values)
        observed = {key: Space.from_json(space) for key, space in obs_space.items()}
        self._spaces = (observed, Space.from_json(act_space))

    def grow(self, directory: str, episodes: int, length: int) -> dict[str, int]:
        """Adds that many after a tenth more that warm up.

        Args:
            directory: An empty folder for them; the caller's, who lives to remove it.
            episodes: How many.
            length: Timesteps of each.

        Returns:
            growth_bytes: how much more memory lies in RAM after them than before; added_bytes: what
            they hold; resident_bytes: of this process at the end; episodes.
        """
        train = self._config.train
        warm = max(1, episodes // 10)
        rng = np.random.default_rng(0)
        replay = _open(self._config, self._spaces, Path(directory))
        before = added = 0
        for number in range(warm + episodes):
            episode = random_episode(*self._spaces, length, rng)
            replay.add(episode, f"benchmark{number}")
            if number % 10 == 0:
                replay.sample(number, train.batch_size, train.batch_length)
            if number + 1 == warm:
                before = resident_bytes()
            elif number >= warm:
                added += sum(array.nbytes for array in episode.values())
        after = resident_bytes()
        return {
            "episodes": episodes, "growth_bytes": after - before, "added_bytes": added,
            "resident_bytes": after,
        }  # fmt: skip


def _open(config: Config, spaces: Spaces, folder: Path) -> Replay:
    return Replay(
        folder, cache_bytes=config.replay.cache_bytes, seed=config.seed, obs_space=spaces[0],
        act_space=spaces[1],
    )  # fmt: skip


@contextmanager
def scratch(spaces: Spaces, episodes: int, length: int) -> Iterator[Path]:
    """A temporary folder (TMPDIR says where) on a disk with room for that many episodes.

    Raises:
        UserError: There is none.
    """
    timestep = random_episode(*spaces, 1, np.random.default_rng(0))
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
