"""How measurements are taken: in turn, and on timesteps of random numbers."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from statistics import median
from typing import TypeVar

import numpy as np

from dreamer.benchmarks.service import Measure
from dreamer.envs.spec import Space

Name = TypeVar("Name", bound=Hashable)


def in_turn(measures: Mapping[Name, Measure], rounds: int, shortest: float) -> dict[Name, float]:
    """Measures in the order A B A B ..., so that disturbances affect all measurements alike.

    Args:
        measures: By name. Each is run once as a warm-up, and once to estimate its duration.
        rounds: Number of measurements of each.
        shortest: Minimum seconds of a measurement; faster work is repeated.

    Returns:
        The median seconds of doing each once.
    """
    counts = {}
    for name, measure in measures.items():
        measure(1)
        counts[name] = max(1, math.ceil(shortest / max(measure(1), 1e-6)))
    found: dict[Name, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            found[name].append(measure(counts[name]) / counts[name])
    return {name: median(seconds) for name, seconds in found.items()}


def random_timesteps(
    obs_space: Mapping[str, Space], act_space: Space, shape: tuple[int, ...], seed: int
) -> dict[str, np.ndarray]:
    """Returns timesteps [*shape, ...] of random numbers, as a replay stores and samples them.

    The last axis of `shape` is time: it holds whole episodes that end at a time limit.
    """
    rng = np.random.default_rng(seed)
    spaces = {**obs_space, "action": act_space}
    timesteps = {key: _random_values(space, shape, rng) for key, space in spaces.items()}
    index = np.broadcast_to(np.arange(shape[-1]), shape)
    return timesteps | {
        "reward": rng.random(shape, np.float32),
        "cont": np.ones(shape, np.float32),
        "is_first": index == 0,
        "is_last": index == shape[-1] - 1,
        "is_terminal": np.zeros(shape, bool),
    }


def _random_values(space: Space, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if space.discrete:
        return np.eye(space.shape[0], dtype=np.float32)[rng.integers(space.shape[0], size=shape)]
    if np.issubdtype(space.dtype, np.integer):
        return rng.integers(0, 256, (*shape, *space.shape), np.uint8).astype(space.dtype)
    return rng.uniform(-1.0, 1.0, (*shape, *space.shape)).astype(space.dtype)
