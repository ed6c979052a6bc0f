"""Environments as users write them: scalars, spaces and ends in every form."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Base(gymnasium.Env):
    """Five steps from states; each method may be replaced."""

    observation_space = Box(-1, 1, (3,), np.float32)
    action_space = Discrete(2)
    render_mode = "rgb_array"
    limit = 5

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.observe(), {}

    def step(self, action):
        self.count += 1
        return self.observe(), self.reward(), False, self.count >= self.limit, {}

    def observe(self):
        return np.zeros(3, np.float32)

    def reward(self):
        return 1.0

    def render(self):
        return np.zeros((64, 64, 3), np.uint8)


class WrongReward(Base):
    """Its mistake shows at the first step."""

    def reward(self):
        return "one"


class WrongReset(Base):
    def reset(self, seed=None, options=None):
        raise NotImplementedError


class WrongEnd(Base):
    """Its mistake shows only where its episodes end."""

    def step(self, action):
        *others, truncated, info = super().step(action)
        return *others, {"why": None}["limit"] if truncated else False, info


class Blind(Base):
    """The most common environment of one's own: vectors, and no render()."""

    render, render_mode, limit = gymnasium.Env.render, None, 20


class Endless(Base):
    limit = np.inf


def suite_task():
    """An environment of dm_env that learns from states and is drawn by its physics."""
    from dm_control import suite

    return suite.load("cartpole", "balance", {"time_limit": 0.05})


def reach_site():
    from dm_control import manipulation

    return manipulation.load("reach_site_features")


class Told(Base):
    """Observes what its maker was told."""

    observation_space = Box(0, np.inf, (3,), np.float64)

    def __init__(self, seed, index=None, training=None, other=3):
        assert other == 3
        self.told = np.array([seed, index, training], np.float64)

    def observe(self):
        return self.told


class Alone(Base):
    """Only one of these can exist, as of a robot or a port."""

    limit = 20

    def __init__(self):
        self._lock = Path(__file__).with_suffix(".lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Numbered(Base):
    """Observes the number of its process."""

    observation_space = Box(0, np.inf, (1,), np.float64)

    def observe(self):
        return np.array([os.getpid()], np.float64)


class Drawn(Base):
    def render(self):
        return np.full((64, 64, 3), self.count, np.uint8)


class Template(Base):
    """As in Gymnasium's tutorial: draws only if it is told so when it is made."""

    metadata = {"render_modes": ["human", "rgb_array"]}

    def __init__(self, render_mode=None, size=5):
        assert render_mode in (None, *self.metadata["render_modes"])
        self.render_mode = render_mode

    def render(self):
        return super().render() if self.render_mode == "rgb_array" else None


class Human(Template):
    metadata = {"render_modes": ["human"]}
