"""A NumPy agent, with which a test of the training loop takes a second."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dreamer.config.config import Config
from dreamer.envs.spec import Space


class NumpyAgent:
    """Acts at random and learns the mean reward.

    Attributes:
        seen: At each action in training, the update that `progress` told, and the updates made.
    """

    precision = "float32"
    seen: list[tuple[int, int]] = []  # noqa: RUF012  (of all agents of a test)

    def __init__(self, config: Config, obs_space: Mapping[str, Space], act_space: Space) -> None:
        self.policy_calls = 0
        self._seed, self._act_space, self._told = config.seed, act_space, 0
        unused = np.zeros(10_000)  # so that a checkpoint is larger than an episode
        self._arrays = {"mean": np.zeros(2), "updates": np.zeros((), np.int64), "unused": unused}

    def policy(self, timesteps: Any, state: Any, mode: str = "train") -> tuple[np.ndarray, Any]:
        rng = np.random.default_rng([self._seed, self.policy_calls])
        self.policy_calls += 1
        if mode == "train":
            self.seen.append((self._told, int(self._arrays["updates"])))
        return np.stack([self._act_space.sample(rng) for _ in timesteps["is_first"]]), None

    def progress(self, step: int, update: int) -> None:
        self._told = update

    def trace(self, batch: Any) -> None:
        assert batch["action"].ndim == 3

    def train_step(self, batch: Any, update: int) -> Mapping[str, Any]:
        assert update == self._arrays["updates"]
        self._arrays["updates"] += 1
        error = batch["reward"] - np.float32(self._arrays["mean"][0])
        with np.errstate(over="ignore"):
            loss = np.square(error).mean()
        if np.isfinite(loss):
            self._arrays["mean"] = self._arrays["mean"] + 0.1 * error.mean()
        return {"error": loss, "nonfinite": float(not np.isfinite(loss))}

    def predict(self, batch: Any, context: int) -> dict[str, np.ndarray]:
        return {}

    def state_arrays(self) -> dict[str, np.ndarray]:
        return {**self._arrays, "policy_calls": np.asarray(self.policy_calls)}

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, array in self.state_arrays().items():
            if arrays[name].shape != array.shape:
                raise ValueError(f"{name} has the wrong shape")
        self._arrays = {name: arrays[name].copy() for name in self._arrays}
        self.policy_calls = int(arrays["policy_calls"])
