"""What every agent here has, whatever it learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dreamer.agent.agent import from_arrays, to_arrays
from dreamer.envs.spec import Space


class Baseline:
    """The part of `dreamer.training.trainer.TrainedAgent` that does not depend on the agent.

    Args:
        obs_space, act_space: Of the environment.
        seed: Of all random numbers.
    """

    precision = "float32"

    def __init__(self, obs_space: Mapping[str, Space], act_space: Space, seed: int):
        self.obs_space, self.act_space, self.seed = dict(obs_space), act_space, seed
        self.policy_calls = 0

    def policy(self, timesteps: Any, state: Any, mode: str = "train") -> tuple[np.ndarray, Any]:
        """Chooses actions, as `dreamer.agent.agent.Agent.policy`."""
        raise NotImplementedError

    def train_step(self, batch: Any, update: int) -> Mapping[str, Any]:
        """Makes an update, as `dreamer.agent.agent.Agent.train_step`."""
        raise NotImplementedError

    def trace(self, batch: Any) -> None:
        """Builds what train_step runs: here, the first call does."""

    def progress(self, step: int, update: int) -> None:
        """Hears where the training is; schedules follow from it."""

    def predict(self, batch: Any, context: int = 5) -> dict[str, np.ndarray]:
        """Open-loop predictions: none, without a model of the environment."""
        del batch, context
        return {}

    def variables(self) -> dict[str, Any]:
        """Everything learnt, by name: TensorFlow variables."""
        return {}

    def state_arrays(self) -> dict[str, np.ndarray]:
        """Everything learnt and counted, by name."""
        return to_arrays(self.variables(), self.policy_calls)

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Puts back what state_arrays gave.

        Raises:
            ValueError: If names or shapes differ from this agent's; nothing is changed then.
        """
        self.policy_calls = from_arrays(self.variables(), arrays)
