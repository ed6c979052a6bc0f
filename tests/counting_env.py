"""A Gymnasium-style environment whose pixels encode the seed, the step and the last action.

Each timestep can thus be checked on its own, wherever it turns up: in an episode file or a batch.
Episode lengths differ from seed to seed; even seeds end in a terminal, odd ones at a time limit.
"""

import numpy as np

from dreamer.envs.spec import Space, Timestep, make_timestep

ACTIONS = 2
SHORTEST, LONGEST = 3, 12  # agent steps of an episode


class CountingEnv:
    """Observations: image uint8 [8, 8, 3] and vector float32 [2 + A]; see `decode`."""

    obs_space = {
        "image": Space((8, 8, 3), np.dtype(np.uint8), 0, 255),
        "vector": Space((2 + ACTIONS,), np.dtype(np.float32)),
    }
    act_space = Space((ACTIONS,), np.dtype(np.float32), -1.0, 1.0)
    action_repeat = 2
    info = {"renderer": "none"}

    def __init__(self) -> None:
        self._seed = 0
        self._step = 0

    def reset(self, seed: int | None = None) -> Timestep:
        self._seed = 0 if seed is None else seed
        self._step = 0
        return make_timestep(self._obs(np.zeros(ACTIONS, np.float32)), is_first=True)

    def step(self, action: np.ndarray) -> Timestep:
        self._step += 1
        last = self._step == episode_length(self._seed)
        return make_timestep(
            self._obs(action),
            reward_of(self._seed, self._step, action),
            is_last=last,
            is_terminal=last and self._seed % 2 == 0,
        )

    def close(self) -> None:
        return

    def _obs(self, action: np.ndarray) -> dict[str, np.ndarray]:
        image = np.zeros((8, 8, 3), np.uint8)
        image[0, :4, 0] = np.frombuffer(np.uint32(self._seed).tobytes(), np.uint8)
        image[1, :, 1] = self._step
        image[2, : 4 * ACTIONS, 2] = np.frombuffer(action.astype("<f4").tobytes(), np.uint8)
        vector = np.array([self._seed % 1000, self._step, *action], np.float32)
        return {"image": image, "vector": vector}


def make() -> CountingEnv:
    """What a worker calls: task ``tests/counting_env.py:make``."""
    return CountingEnv()


def episode_length(seed: int) -> int:
    """Agent steps of the episode with that seed."""
    return SHORTEST + seed % (LONGEST - SHORTEST + 1)


def reward_of(seed: int, step: int, action: np.ndarray) -> float:
    """The reward on arriving at `step` by `action`."""
    return float(np.float32(seed % 100 + step / 16 + action[0]))


def decode(image: np.ndarray) -> tuple[int, int, np.ndarray]:
    """Returns the episode's seed, the step and the last action that an image [8, 8, 3] encodes."""
    seed = int(np.frombuffer(image[0, :4, 0].tobytes(), np.uint32)[0])
    action = np.frombuffer(image[2, : 4 * ACTIONS, 2].tobytes(), "<f4")
    return seed, int(image[1, 0, 1]), action
