"""Environments of the real gym 0.26 whose steps return four values; for a Python with gym."""

import gym
import numpy as np
from gym.wrappers import StepAPICompatibility


def cartpole():
    """gym's own environment with its time limit, converted to four values by gym itself."""
    env = gym.make("CartPole-v1", render_mode="rgb_array", max_episode_steps=30)
    return StepAPICompatibility(env, output_truncation_bool=False)


class Dot(gym.Env):
    """Like environments before gym 0.26: reset() returns only the observation, seed() is a method,
    render takes a mode, and step returns four values."""

    observation_space = gym.spaces.Dict({
        "camera": gym.spaces.Box(0, 255, (32, 48, 3), np.uint8),
        "place": gym.spaces.Box(-1.0, 1.0, (1,), np.float32),
        "room": gym.spaces.Discrete(3),
    })  # fmt: skip
    action_space = gym.spaces.Box(np.float32(0.0), np.float32(0.2), (1,), np.float32)
    metadata = {"render.modes": ["rgb_array"]}

    def seed(self, seed=None):
        self._random = np.random.default_rng(seed)
        return [seed]

    def reset(self):
        self._place = self._random.uniform(-1.0, 0.0)
        return self._observe()

    def step(self, action):
        assert self.action_space.contains(action)
        self._place += float(action[0])
        return self._observe(), self._place, self._place > 0.9, {}

    def render(self, mode="human"):
        assert mode == "rgb_array"
        return self._observe()["camera"]

    def _observe(self):
        camera = np.full((32, 48, 3), int(100 + 100 * min(self._place, 1.0)), np.uint8)
        place = np.array([min(self._place, 1.0)], np.float32)
        return {"camera": camera, "place": place, "room": int(self._place > 0)}


def dot():
    return Dot()
