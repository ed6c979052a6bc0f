"""What the training loop requires of an agent, a collector, and a source of batches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol

import numpy as np

from dreamer.training.collector import Episode, Policy

DrawBatches = Callable[[int, int], Generator[tuple[int, Any], None, None]]
"""(first, count) -> the batches of `count` updates, the first of which has the number `first`.

Each batch comes with the number of updates that one `train_step` makes of it.
"""


class TrainableAgent(Protocol):
    """An agent that the loop can train; `dreamer.agent.agent.Agent` documents each method."""

    precision: str
    policy_calls: int

    def policy(self, timesteps: Any, state: Any, mode: str = "train") -> tuple[np.ndarray, Any]: ...
    def progress(self, step: int, update: int) -> None: ...
    def trace(self, batch: Any) -> None: ...
    def train_step(self, batch: Any, update: int) -> Mapping[str, Any]: ...
    def predict(self, batch: Any, context: int) -> dict[str, np.ndarray]: ...
    def state_arrays(self) -> dict[str, np.ndarray]: ...
    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None: ...


class TrainingCollector(Protocol):
    """Steps the environments and keeps what the agent learns from.

    `dreamer.training.experience.ReplayCollector` documents each method.
    """

    @property
    def agent_steps(self) -> int: ...
    @property
    def updates(self) -> int: ...
    def counters(self) -> dict[str, float]: ...
    def start(self, agent_steps: int) -> None: ...
    def random_policy(self) -> Policy | None: ...  # None: there is no replay to fill
    def collect(self, policy: Policy, agent_steps: int) -> None: ...
    def withhold_episodes(self) -> contextlib.AbstractContextManager[None]: ...
    def state(self) -> dict[str, Any]: ...
    def resume(self, state: Mapping[str, Any], check: Callable[[], None]) -> bool: ...
    def close(self) -> None: ...


class EpisodeMemory(Protocol):
    """An agent's own memory of `capacity` timesteps, beside the replay on disk."""

    @property
    def capacity(self) -> int: ...
    def remember(self, episode: Episode) -> None: ...
