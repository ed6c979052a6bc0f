"""Training on an environment of one's own; `python own_env.py debug` is over in a minute."""

import sys

import gymnasium
import numpy as np

from dreamer import load_config, train


class Reach(gymnasium.Env):
    """A white dot on a black image. The nearer the dot is to the middle, the higher the reward."""

    observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.left = self.np_random.uniform(-1.0, 1.0, 2), 100
        return self.draw(), {}

    def step(self, action):
        self.place, self.left = np.clip(self.place + 0.1 * action, -1.0, 1.0), self.left - 1
        return self.draw(), 1.0 - np.abs(self.place).max(), False, self.left == 0, {}

    def draw(self):
        row, column = (28 + 28 * self.place).astype(int)
        around = (row, 56 - row), (column, 56 - column), (0, 0)
        return np.pad(np.full((8, 8, 3), 255, np.uint8), around)


if __name__ == "__main__":  # because the environment's own process imports this file as well
    train(load_config(*sys.argv[1:] or ["small"], task="own_env.py:Reach"))
