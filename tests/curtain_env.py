"""A tiny image task whose best return is known: bring the edge of a curtain to the middle.

The edge starts far on one side, left or right by the seed. Only the image tells where it is.
"""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

LENGTH = 10  # steps of an episode
START, STRIDE, WIDTH = 0.8, 0.25, 0.4


class Curtain(gymnasium.Env):
    """Action [1] in [-1, 1] moves the edge by up to STRIDE; observes uint8 [64, 64, 3]."""

    def __init__(self) -> None:
        self.observation_space = Box(0, 255, (64, 64, 3), np.uint8)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)
        self._place, self._step = 0.0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._place, self._step = START * self.np_random.choice([-1.0, 1.0]), 0
        return self._draw(), {}

    def step(self, action):
        self._place = float(np.clip(self._place + STRIDE * action[0], -1.0, 1.0))
        self._step += 1
        return self._draw(), reward_at(self._place), False, self._step == LENGTH, {}

    def _draw(self) -> np.ndarray:
        image = np.zeros((64, 64, 3), np.uint8)
        image[:, : round(32 + 28 * self._place)] = 255
        return image


def reward_at(place: float) -> float:
    """The reward on arriving at a place: 1 in the middle, next to nothing at the start."""
    return float(np.exp(-((place / WIDTH) ** 2)))


def best_return() -> float:
    """Straight to the middle at full speed, then rest there."""
    places = [max(START - STRIDE * step, 0.0) for step in range(1, LENGTH + 1)]
    return sum(map(reward_at, places))


def make() -> Curtain:
    return Curtain()


class DiscreteCurtain(Curtain):
    """The same with three actions: left, stay, right."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = Discrete(3)

    def step(self, action):
        return super().step([int(action) - 1.0])


def make_discrete() -> DiscreteCurtain:
    return DiscreteCurtain()
