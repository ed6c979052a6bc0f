"""One environment in a worker process, with the interface of an environment."""

from typing import Any

import numpy as np

from dreamer.envs.processes.pool import EnvPool
from dreamer.envs.spec import Timestep


class PoolEnv:
    """An environment that renders cannot run in the tests' own process, which may hold TensorFlow.

    A failed step closes the pool; a new pool then replaces it.
    """

    def __init__(self, task: str, **settings: Any):
        self._make = lambda: EnvPool(task, 1, 60.0, **settings)
        self._pool = self._make()
        for name in ("obs_space", "act_space", "action_repeat", "info"):
            setattr(self, name, getattr(self._pool, name))

    def reset(self, seed: int | None = None) -> Timestep:
        return self._pool.reset([seed])[0]

    def step(self, action: np.ndarray) -> Timestep:
        try:
            return self._pool.step(action[None])[0]
        except Exception:
            self._pool = self._make()
            raise

    def close(self) -> None:
        self._pool.close()
