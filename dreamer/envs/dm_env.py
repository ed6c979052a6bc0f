"""Environments of dm_env: dm_control's suite, composer, locomotion and manipulation, and others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from dreamer.envs.spec import EnvSettings


class GymOfDmEnv:
    """An environment of dm_env with Gymnasium's methods, for `dreamer.envs.gym.adapt_gym`.

    An episode's last step is terminal if its discount is 0; else it is a time limit. Environments
    of dm_control are drawn by their physics, with the first camera if the settings name none, and
    are seeded by their RandomState.
    """

    def __init__(self, env: Any, settings: EnvSettings):
        self._env = env
        self.observation_space = _space(env.observation_spec())
        self.action_space = _space(env.action_spec())
        self.spec = SimpleNamespace(max_episode_steps=_limit(env))
        self.render_mode, self._settings = "rgb_array", settings
        if hasattr(env, "physics"):
            self.render = self._render
        own = getattr(env, "random_state", None)
        self._random: Any = own or getattr(getattr(env, "task", None), "random", None)
        self.reset = self._reset_seeded if hasattr(self._random, "seed") else self._reset

    def _reset(self) -> Any:
        return self._env.reset().observation

    def _reset_seeded(self, seed: int | None = None) -> Any:
        if seed is not None:
            self._random.seed(seed)
        return self._reset()

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        timestep = self._env.step(action)
        last = timestep.last()
        terminal = last and timestep.discount == 0
        return timestep.observation, timestep.reward, terminal, last and not terminal, {}

    def _render(self) -> np.ndarray:
        size, camera, physics = self._settings.image_size, self._settings.camera, self._env.physics
        if camera < 0:
            camera = 0 if physics.model.ncam else -1  # -1: MuJoCo's free camera
        return physics.render(size, size, camera_id=camera)

    def close(self) -> None:
        self._env.close()


def is_dm_env(env: Any) -> bool:
    """Whether `env` has the methods of dm_env.Environment."""
    names = ("observation_spec", "action_spec", "reset", "step")
    return all(callable(getattr(env, name, None)) for name in names)


def _limit(env: Any) -> int:
    """Returns the steps of the longest episodes, which dm_control tells only in private; 0: none.

    The suite counts steps, composer seconds.
    """
    limit = getattr(env, "_step_limit", math.inf)
    if math.isfinite(seconds := getattr(env, "_time_limit", math.inf)):
        limit = min(limit, seconds / env.control_timestep())
    return math.ceil(round(limit, 6)) if math.isfinite(limit) else 0


def _space(spec: Any) -> Any:
    """Returns a space with Gymnasium's fields of a spec, or of specs nested in any way."""
    if isinstance(spec, Mapping):
        return {key: _space(part) for key, part in spec.items()}
    if isinstance(spec, list | tuple):
        return SimpleNamespace(spaces=[_space(part) for part in spec])
    if hasattr(spec, "num_values"):
        return SimpleNamespace(n=int(spec.num_values))
    dtype = np.dtype(spec.dtype)
    if dtype.kind in "OSU":  # dm_env's StringArray
        return SimpleNamespace(dtype=np.dtype("U1"))
    whole = np.iinfo(dtype) if dtype.kind in "iu" else None
    low = getattr(spec, "minimum", whole.min if whole else 0 if dtype.kind == "b" else -np.inf)
    high = getattr(spec, "maximum", whole.max if whole else 1 if dtype.kind == "b" else np.inf)
    return SimpleNamespace(low=low, high=high, shape=spec.shape, dtype=dtype)
