"""Open-loop predictions: episodes that training never saw, errors by steps ahead, and images.

Sequences are [B, T, ...] from `Agent.predict`: images uint8, everything else float32. The model has
observed the first `context` timesteps; timestep context - 1 + k is k steps ahead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreamer.data.episodes import EPISODE_KEYS, EpisodeError, EpisodeFile
from dreamer.envs.processes.pool import EnvPool
from dreamer.errors import UserError
from dreamer.logs.video import signed_difference
from dreamer.system.streams import warn
from dreamer.training.collector import Collector, Episode, Policy
from dreamer.training.reports import EVAL_SEED_OFFSET

TRIES = 4  # episodes run at most for each one wanted, if they end too soon
IMAGE_UNIT = "levels of 255"
VECTOR_UNIT = "own units"
_HEIGHT = 64  # pixels of an image of bars, as observations have
_BAR, _GROUND = 220, 20  # grey levels


def collect_fresh(
    pool: EnvPool, policy: Policy, seed: int, count: int, length: int, longest: int = 0
) -> list[Episode]:
    """Runs the first `length` timesteps of `count` new episodes of each task, [length, ...] each.

    With `longest`, they go on up to so many timesteps. They start as the episodes of a run's first
    evaluation do. Others replace those that end too soon, at most TRIES * count run in all, so
    there may be fewer than `count`. Raises UserError if none was long enough.
    """
    found: dict[int, Episode] = {}
    lengths = []

    def keep(episode: Episode, number: int) -> None:
        lengths.append(len(episode["reward"]))
        if lengths[-1] >= length:
            found[number] = episode

    collector = Collector(pool, keep, seed + EVAL_SEED_OFFSET, max_length=max(length, longest))
    tasks = len(set(pool.tasks))
    while len(found) < count * tasks and collector.next_episode < TRIES * count * tasks:
        collector.collect_episodes(policy, -(-(count * tasks - len(found)) // tasks))
    if not found:
        raise UserError(
            f"none of {len(lengths)} episodes had {length} timesteps, the longest {max(lengths)}: "
            "choose a smaller --horizon or --context"
        )
    return [found[number] for number in sorted(found)]


def read_saved(
    folder: Path, pool: EnvPool, count: int, length: int, longest: int = 0
) -> list[Episode]:
    """Reads the first `length` timesteps of the newest `count` episodes that are long enough.

    With `longest`, they go on up to so many timesteps. Damaged files are named on stderr and
    skipped.

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
    most = 0
    for path in paths:
        try:
            file = EpisodeFile(path)
            most = max(most, file.length)
            if file.length >= length:
                found.append(_read(file, pool, min(file.length, max(length, longest))))
        except EpisodeError as error:
            warn(f"warning: {error}")
        if len(found) == count:
            break
    if not found:
        raise UserError(
            f"no episode in {folder} has {length} timesteps, the longest {most}: choose a "
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


@dataclass(frozen=True)
class StepErrors:
    """Mean absolute errors of an observation or the reward; element k - 1 is k steps ahead."""

    unit: str
    mean: list[float]  # over the sequences and the observation's elements
    std: list[float]  # over the sequences, of each sequence's error
    still: list[float]  # of the prediction that nothing changes after the last timestep observed


def step_errors(truth: np.ndarray, model: np.ndarray, context: int) -> StepErrors:
    """Returns the errors of predictions [B, T, ...] of any rank, T - context of them."""
    error = _absolute(truth[:, context:], model[:, context:])
    still = _absolute(truth[:, context:], truth[:, context - 1 : context])
    return StepErrors(
        unit=IMAGE_UNIT if truth.dtype == np.uint8 else VECTOR_UNIT,
        mean=error.mean(0).tolist(),
        std=error.std(0).tolist(),
        still=still.mean(0).tolist(),
    )


def _absolute(truth: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Returns the mean absolute differences float64 [B, K] of [B, K, ...] and a like array."""
    difference = np.abs(truth.astype(np.float64) - model.astype(np.float64))
    return difference.reshape(*truth.shape[:2], -1).mean(-1)


def rows(truth: np.ndarray, model: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns truth, model and error as images uint8 [B, T, H, W, C], for `open_loop_video`.

    Images stay as they are; each element of float32 [B, T, n] or [B, T] becomes a bar.
    """
    if truth.dtype == np.uint8:
        return truth, model, signed_difference(truth, model)
    values = [v.reshape(*v.shape[:2], -1).astype(np.float64) for v in (truth, model)]
    everything = np.concatenate([v.reshape(-1, v.shape[-1]) for v in values])
    low, high = everything.min(0), everything.max(0)
    span = np.where(high > low, high - low, 1.0)
    truth_part, model_part = ((v - low) / span for v in values)
    error = (model_part - truth_part + 1.0) / 2.0  # without an error, half the image's height
    return _bars(truth_part, 0.0), _bars(model_part, 0.0), _bars(error, 0.5)


def _bars(parts: np.ndarray, origin: float) -> np.ndarray:
    """Draws values [B, T, n] in [0, 1] as n bars from `origin`: uint8 [B, T, H, W, 1]."""
    place = (np.arange(_HEIGHT)[::-1] + 0.5) / _HEIGHT  # of each row of pixels, from the bottom
    low, high = np.minimum(parts, origin), np.maximum(parts, origin)
    inside = (place[:, None] >= low[..., None, :]) & (place[:, None] <= high[..., None, :])
    picture = np.where(inside, _BAR, _GROUND).astype(np.uint8)[..., None]  # [B, T, H, n, 1]
    return picture.repeat(max(1, _HEIGHT // parts.shape[-1]), axis=-2)
