"""Beginnings of episodes that training never sees: run now, or saved by evaluations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dreamer.data.episodes import EPISODE_KEYS, EpisodeError, EpisodeFile
from dreamer.errors import UserError
from dreamer.system.streams import warn
from dreamer.training.collector import Episode, Policy, episode_seed, stack
from dreamer.training.evaluation import EVAL_SEED_OFFSET

if TYPE_CHECKING:
    from dreamer.envs.processes.pool import EnvPool

TRIES = 4  # episodes started at most for each one wanted, if they end too soon


def collect_fresh(
    pool: EnvPool, policy: Policy, seed: int, count: int, length: int
) -> list[Episode]:
    """Runs the first `length` timesteps of `count` new episodes, [length, ...] each.

    They start as the episodes of a first evaluation do. Episodes that end too soon are left out and
    others run instead, at most TRIES * count in all, so there may be fewer than `count`.

    Raises:
        UserError: No episode was long enough.
    """
    found: list[Episode] = []
    started = longest = 0
    while len(found) < count and started < TRIES * count:
        amount = min(pool.num_envs, count - len(found))
        numbers = range(started, started + amount)
        seeds = [episode_seed(seed + EVAL_SEED_OFFSET, number) for number in numbers]
        started += amount
        for episode in _beginnings(pool, policy, seeds, length):
            longest = max(longest, len(episode["reward"]))
            found += [episode] if len(episode["reward"]) == length else []
    if not found:
        raise UserError(
            f"none of {started} episodes had {length} timesteps, the longest {longest}: choose a "
            "smaller --horizon or --context"
        )
    return found


def _beginnings(pool: EnvPool, policy: Policy, seeds: list[int], length: int) -> Iterator[Episode]:
    """Yields an episode for each seed, up to its end or `length` timesteps."""
    nothing = np.zeros(pool.act_space.shape, np.float32)
    first = pool.reset(seeds, range(len(seeds)))
    episodes = [[{**timestep, "action": nothing}] for timestep in first]
    state = None
    for _ in range(length - 1):
        running = [i for i, timesteps in enumerate(episodes) if not timesteps[-1]["is_last"]]
        if not running:
            break
        latest = stack([timesteps[-1] for timesteps in episodes])  # of ended episodes, too
        del latest["action"]
        actions, state = policy(latest, state)
        for i, timestep in zip(running, pool.step(actions[running], running), strict=True):
            episodes[i].append({**timestep, "action": actions[i].copy()})
    yield from map(stack, episodes)


def read_saved(folder: Path, pool: EnvPool, count: int, length: int) -> list[Episode]:
    """Reads the first `length` timesteps of the newest `count` episodes that are long enough.

    Damaged files are named on stderr and skipped.

    Raises:
        UserError: There are no episodes, none is long enough, or they are another environment's.
    """
    paths = sorted(folder.glob("*.npz"), reverse=True)
    if not paths:
        raise UserError(
            f"{folder} holds no episodes (a run keeps them if eval.save_episodes is true); leave "
            "--source out to run fresh ones"
        )
    found: list[Episode] = []
    longest = 0
    for path in paths:
        try:
            file = EpisodeFile(path)
            longest = max(longest, file.length)
            if file.length >= length:
                found.append(_read(file, pool, length))
        except EpisodeError as error:
            warn(f"warning: {error}")
        if len(found) == count:
            break
    if not found:
        raise UserError(
            f"no episode in {folder} has {length} timesteps, the longest {longest}: choose a "
            "smaller --horizon or --context"
        )
    return found


def _read(file: EpisodeFile, pool: EnvPool, length: int) -> Episode:
    spaces = {**pool.obs_space, "action": pool.act_space}
    for key, space in spaces.items():
        if key not in file.keys or file.timestep_spec(key) != (space.shape, space.dtype):
            raise UserError(f"{file.path} is of another environment: its {key} differs")
    keys = [*pool.obs_space, *EPISODE_KEYS]
    file.check(keys)
    return file.read(0, length, keys)
