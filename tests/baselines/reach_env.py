"""A quick task with vectors: a point is to be brought to the middle."""

from __future__ import annotations

import numpy as np

from dreamer.envs.spec import Record, Space, make_record

LENGTH = 10  # agent steps of an episode


class Reach:
    """Observation: place float32 [1] and time float32 [1]. Reward: 1 - |place|, at most 1.

    Continuous actions [1] push it; of the three one-hot ones, left, none and right. Episodes end at
    a time limit, or as terminals.
    """

    obs_space = {
        "place": Space((1,), np.dtype(np.float32), -1.0, 1.0),
        "time": Space((1,), np.dtype(np.float32), 0.0, 1.0),
    }
    action_repeat = 1
    info: dict[str, str] = {}

    def __init__(self, discrete: bool = False, terminal: bool = False) -> None:
        flat = Space((3,), np.dtype(np.float32), 0.0, 1.0, discrete=True)
        self.act_space = flat if discrete else Space((1,), np.dtype(np.float32), -1.0, 1.0)
        self._terminal = terminal
        self._rng = np.random.default_rng()
        self._place, self._step = 0.0, 0

    def reset(self, seed: int | None = None) -> Record:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._place, self._step = float(self._rng.uniform(-1, 1)), 0
        return make_record(self._obs(), is_first=True)

    def step(self, action: np.ndarray) -> Record:
        push = float(np.argmax(action) - 1) if self.act_space.discrete else float(action[0])
        self._place = float(np.clip(self._place + 0.3 * push, -1, 1))
        self._step += 1
        last = self._step == LENGTH
        reward = 1 - abs(self._place)
        return make_record(
            self._obs(), reward, is_last=last, is_terminal=last and self._terminal
        )

    def close(self) -> None:
        return

    def _obs(self) -> dict[str, np.ndarray]:
        return {
            "place": np.array([self._place], np.float32),
            "time": np.array([self._step / LENGTH], np.float32),
        }


def continuous() -> Reach:
    return Reach()


def discrete() -> Reach:
    return Reach(discrete=True, terminal=True)
