"""What the training loop asks of an agent, of what collects, and of what its batches come from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol

import numpy as np

from dreamer.training.collector import Episode, Policy


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

    Attributes:
        agent_steps: Actions carried out by the run's environments, earlier processes included.
        updates: Updates that it made itself while collecting; 0 for all but A3C's collector.
    """

    @property
    def agent_steps(self) -> int: ...
    @property
    def updates(self) -> int: ...
    def counters(self) -> dict[str, float]:
        """Returns counts of episodes, for the metrics: all, dropped_... and damaged_..."""

    def resume(self, state: Mapping[str, Any], check: Callable[[], None]) -> bool:
        """Continues from a checkpoint's state, {} without one; returns whether there is a run.

        Args:
            state: What `state` returned.
            check: Called now and then; what it raises ends the resumption.

        Raises:
            KeyError, TypeError, ValueError: `state` did not return that.
        """

    def start(self, agent_steps: int) -> None:
        """Prepares to collect that many agent steps; called once, before the first."""

    def random_policy(self) -> Policy:
        """Returns a policy of uniform actions, which follow from the seed and the steps so far."""

    def collect(self, policy: Policy, agent_steps: int) -> None:
        """Collects at least that many agent steps."""

    def withhold_episodes(self) -> contextlib.AbstractContextManager[None]:
        """Within it, batches are drawn from the episodes that there were at its start."""

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps of it, as JSON's types."""

    def close(self) -> None:
        """Ends what `start` has begun."""


class BatchSource(Protocol):
    """Where the batches of updates come from.

    Attributes:
        ready: Whether there is anything to draw from.
    """

    @property
    def ready(self) -> bool: ...

    def draw(self, first: int, count: int) -> Generator[tuple[int, Any], None, None]:
        """Yields the batches of `count` updates, the first of which has the number `first`.

        Each comes with the number of updates that one `train_step` makes of it.
        """


class EpisodeMemory(Protocol):
    """An agent's own memory of episodes, beside the replay on disk.

    Attributes:
        capacity: Timesteps that it holds.
    """

    @property
    def capacity(self) -> int: ...

    def remember(self, episode: Episode) -> None:
        """Takes a complete episode [L, ...] in."""
