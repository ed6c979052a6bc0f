"""What all agents here share, and the lowest baselines: random and constant policies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dreamer.agent.agent import from_arrays, to_arrays
from dreamer.config.config import Config
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.training.collector import random_policy


class Baseline:
    """The part of `dreamer.training.interfaces.TrainableAgent` that is the same for all agents.

    A subclass defines `policy`; one that learns, `train_step` and `variables` as well. Class
    `dreamer.agent.agent.Agent` documents them.

    Args:
        config: The run's config; configs/agents/<agent>.yaml has the section of the agent's name.
        obs_space, act_space: The environment's.
    """

    precision = "float32"

    def __init__(self, config: Config, obs_space: Mapping[str, Space], act_space: Space):
        self.act_space, self.seed, self.policy_calls = act_space, config.seed, 0

    def trace(self, batch: Any) -> None:
        """Does nothing: the first call of train_step traces."""

    def progress(self, step: int, update: int) -> None:
        """Sets the progress of training, which schedules depend on."""

    def predict(self, batch: Any, context: int = 5) -> dict[str, np.ndarray]:
        """Returns no predictions: there is no model of the environment."""
        return {}

    def variables(self) -> dict[str, Any]:
        """Returns the TensorFlow variables, by name."""
        return {}

    def state_arrays(self) -> dict[str, np.ndarray]:
        """Returns all that is learnt and counted, by name."""
        return to_arrays(self.variables(), self.policy_calls)

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Restores what state_arrays returned; raises ValueError as `from_arrays`."""
        self.policy_calls = from_arrays(self.variables(), arrays)


class Random(Baseline):
    """Takes independent actions, uniform over the space, in training and evaluation."""

    def policy(self, timesteps: Any, state: Any, mode: str = "train") -> tuple[np.ndarray, None]:
        """Returns actions float32 [n, A], which follow from the seed and the number of the call."""
        act = random_policy(self.act_space, self.seed, self.policy_calls)
        self.policy_calls += 1
        return act(timesteps, state)


class Constant(Baseline):
    """Always takes the config's constant.action; UserError if the space has no such action."""

    def __init__(self, config: Config, obs_space: Mapping[str, Space], act_space: Space):
        super().__init__(config, obs_space, act_space)
        size, value = act_space.shape[0], config.constant.action
        if act_space.parts:
            raise UserError("constant takes one number as its action, but this task's are several")
        if act_space.discrete:
            if value not in range(size):
                raise UserError(
                    f"constant.action is {value:g}; the actions of this task are 0 to {size - 1}"
                )
            self._action = np.eye(size, dtype=np.float32)[int(value)]
        else:
            if not -1 <= value <= 1:
                raise UserError(f"constant.action is {value:g}; actions lie in [-1, 1]")
            self._action = np.full(size, value, np.float32)

    def policy(self, timesteps: Any, state: Any, mode: str = "train") -> tuple[np.ndarray, None]:
        """Returns the action for each of n environments, float32 [n, A]."""
        return np.tile(self._action, (len(timesteps["is_first"]), 1)), None
