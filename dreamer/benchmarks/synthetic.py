"""Timesteps of random numbers in an environment's shapes; no measurement depends on the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dreamer.envs.spec import Space


def random_episode(
    obs_space: Mapping[str, Space], act_space: Space, length: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """One episode [L, ...] as `Replay.add` takes it; bounded vectors are drawn from [-1, 1] too."""
    episode = {key: _values(space, length, rng) for key, space in obs_space.items()}
    episode["action"] = _values(act_space, length, rng)
    episode["reward"] = rng.random(length, np.float32)
    episode["cont"] = np.ones(length, np.float32)
    index = np.arange(length)
    episode |= {"is_first": index == 0, "is_last": index == length - 1}
    episode["is_terminal"] = np.zeros(length, bool)
    return episode


def random_batch(
    obs_space: Mapping[str, Space], act_space: Space, size: int, length: int, seed: int
) -> dict[str, np.ndarray]:
    """A batch [B, T, ...] as `Replay.sample` returns it."""
    rng = np.random.default_rng(seed)
    rows = [random_episode(obs_space, act_space, length, rng) for _ in range(size)]
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def random_timesteps(
    obs_space: Mapping[str, Space], act_space: Space, count: int, seed: int
) -> dict[str, np.ndarray]:
    """Timesteps [n, ...] in the middle of episodes, as policies take them."""
    batch = random_batch(obs_space, act_space, count, 3, seed)
    return {key: value[:, 1] for key, value in batch.items() if key != "action"}


def _values(space: Space, length: int, rng: np.random.Generator) -> np.ndarray:
    if space.discrete:
        return np.eye(space.shape[0], dtype=np.float32)[rng.integers(space.shape[0], size=length)]
    if np.issubdtype(space.dtype, np.integer):
        return rng.integers(0, 256, (length, *space.shape), np.uint8).astype(space.dtype)
    return rng.uniform(-1.0, 1.0, (length, *space.shape)).astype(space.dtype)
