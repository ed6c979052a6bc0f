"""Gymnasium and old gym environments for tests, in workers or in the tests' own process."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete


class Drift(gymnasium.Env):
    """A point that moves by the action; its images are drawn on demand and counted."""

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode: str | None = "rgb_array", end: float = 3.0):
        self.render_mode = render_mode
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = Box(np.array([0.0, -2.0], np.float32), np.array([1.0, 2.0], np.float32))
        self.drawn = 0
        self.actions: list[np.ndarray] = []
        self._end = end

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._place = self.np_random.uniform(-0.1, 0.1, 2)
        return self._place.copy(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.actions.append(action)
        self._place = self._place + action
        terminated = bool(self._place[0] > self._end)
        return self._place.copy(), float(action[0]), terminated, False, {}

    def render(self):
        self.drawn += 1
        frame = np.zeros((96, 128, 3), np.uint8)
        frame[:48] = int(10 * max(0.0, self._place[0]))
        return frame


class Mixed(gymnasium.Env):
    """Observes a Dict of images, a vector and a Discrete; takes Discrete actions from 3 on."""

    def __init__(self):
        self.observation_space = Dict({
            "camera": Box(0, 255, (96, 96, 3), np.uint8),
            "depth": Box(0, 255, (64, 64), np.uint8),
            "arm": Dict({"joints": Box(-1, 1, (2, 2), np.float32)}),
            "room": Discrete(4, start=1),
        })  # fmt: skip
        self.action_space = Discrete(3, start=3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action):
        return self._observe(action - 2), float(action), False, False, {}

    def _observe(self, room=1):
        return {
            "camera": np.full((96, 96, 3), 50, np.uint8),
            "depth": np.full((64, 64), 7, np.uint8),
            "arm": {"joints": self.np_random.uniform(-1, 1, (2, 2)).astype(np.float32)},
            "room": np.int64(room),
        }


def old_box(bound, size):
    """A space like old gym's, which shares no class with Gymnasium's."""
    space = type("Box", (), {"shape": (size,), "dtype": np.dtype(np.float32)})()
    space.low, space.high = np.full(size, -bound, np.float32), np.full(size, bound, np.float32)
    return space


class Old:
    """Like old gym's before 0.22: seed(), reset() -> obs, a 4-tuple step, render(mode)."""

    def __init__(self, limit: int = 0):
        self.observation_space, self.action_space = old_box(10, 3), old_box(2, 1)
        self._limit, self._rng = limit, np.random.default_rng()

    def seed(self, seed=None):
        self._rng = np.random.default_rng(seed)

    def reset(self):
        self._count = 0
        return self._rng.uniform(-1, 1, 3).astype(np.float32)

    def step(self, action):
        self._count += 1
        done = self._count >= 6
        info = {}
        if self._count == self._limit:
            done, info = True, {"TimeLimit.truncated": True}
        return self._rng.uniform(-1, 1, 3).astype(np.float32), float(action[0]), done, info

    def render(self, mode="human"):
        assert mode == "rgb_array"
        return np.full((64, 64, 3), self._count, np.uint8)

    def close(self):
        pass


gymnasium.register("Drift-v0", entry_point=Drift, max_episode_steps=5)
