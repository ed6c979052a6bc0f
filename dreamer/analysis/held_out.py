"""Beginnings of episodes that training never sees: run now, or saved by evaluations."""

from __future__ import annotations

from pathlib import Path

from dreamer.data.episodes import EPISODE_KEYS, EpisodeError, EpisodeFile
from dreamer.envs.processes.pool import EnvPool
from dreamer.errors import UserError
from dreamer.system.streams import warn
from dreamer.training.collector import Collector, Episode, Policy
from dreamer.training.evaluation import EVAL_SEED_OFFSET

TRIES = 4  # episodes run at most for each one wanted, if they end too soon


def collect_fresh(
    pool: EnvPool, policy: Policy, seed: int, count: int, length: int
) -> list[Episode]:
    """Runs the first `length` timesteps of `count` new episodes of each task, [length, ...] each.

    They start as the episodes of a first evaluation do. Episodes that end too soon are left out and
    others run instead, at most TRIES * count in all, so there may be fewer than `count`.

    Raises:
        UserError: No episode was long enough.
    """
    found: dict[int, Episode] = {}
    lengths = []

    def keep(episode: Episode, number: int) -> None:
        lengths.append(len(episode["reward"]))
        if lengths[-1] == length:
            found[number] = episode

    collector = Collector(pool, keep, seed + EVAL_SEED_OFFSET, max_length=length)
    tasks = len(set(pool.tasks))
    while len(found) < count * tasks and collector.next_episode < TRIES * count * tasks:
        collector.collect_episodes(policy, -(-(count * tasks - len(found)) // tasks))
    if not found:
        raise UserError(
            f"none of {len(lengths)} episodes had {length} timesteps, the longest {max(lengths)}: "
            "choose a smaller --horizon or --context"
        )
    return [found[number] for number in sorted(found)]


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
