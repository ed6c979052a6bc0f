"""Random and constant policies, the lowest baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from baselines.agent import Baseline
from dreamer.config.config import Config
from dreamer.envs.spec import Space
from dreamer.errors import UserError


class Random(Baseline):
    """Takes independent actions, uniform over the space, in training and evaluation."""

    def policy(self, timesteps: Any, state: Any, mode: str = "train") -> tuple[np.ndarray, None]:
        """Returns actions float32 [n, A], which follow from the seed and the number of the call."""
        rng = np.random.default_rng([self.seed, self.policy_calls])
        self.policy_calls += 1
        actions = [self.act_space.sample(rng) for _ in timesteps["is_first"]]
        return np.stack(actions).astype(np.float32), None


class Constant(Baseline):
    """Takes the same action always: the config's constant.action.

    Raises:
        UserError: The action space has no such action.
    """

    def __init__(self, config: Config, obs_space: Mapping[str, Space], act_space: Space):
        super().__init__(config, obs_space, act_space)
        size, value = act_space.shape[0], config.constant.action
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
