"""A quick task with vectors: move a point to the middle."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dreamer.envs.spec import Space, Timestep, make_timestep

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

    def reset(self, seed: int | None = None) -> Timestep:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._place, self._step = float(self._rng.uniform(-1, 1)), 0
        return make_timestep(self._obs(), is_first=True)

    def step(self, action: np.ndarray) -> Timestep:
        push = float(np.argmax(action) - 1) if self.act_space.discrete else float(action[0])
        self._place = float(np.clip(self._place + 0.3 * push, -1, 1))
        self._step += 1
        last = self._step == LENGTH
        reward = 1 - abs(self._place)
        return make_timestep(
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


class Echo:
    """Shows the action that led to each timestep, and pays ten times its first element.

    Observation: moved float32 [2] and step float32 [1], zeros at the start. The third episode of
    each process does at its fourth step what `harm` does, if anything.
    """

    obs_space = {
        "moved": Space((2,), np.dtype(np.float32), -1.0, 1.0),
        "step": Space((1,), np.dtype(np.float32), 0.0, float(LENGTH)),
    }
    act_space = Space((2,), np.dtype(np.float32), -1.0, 1.0)
    action_repeat = 1
    info: dict[str, str] = {}

    def __init__(self, harm: Callable[[], None] | None = None, scale: float = 10.0) -> None:
        self._harm, self._scale = harm, scale
        self._episodes = self._step = 0

    def reset(self, seed: int | None = None) -> Timestep:
        self._episodes, self._step = self._episodes + 1, 0
        return make_timestep(self._obs(np.zeros(2, np.float32)), is_first=True)

    def step(self, action: np.ndarray) -> Timestep:
        self._step += 1
        if self._harm and self._episodes == 3 and self._step == 4:
            self._harm()
        reward = self._scale * float(action[0])
        return make_timestep(self._obs(action), reward, is_last=self._step == LENGTH)

    def close(self) -> None:
        return

    def _obs(self, action: np.ndarray) -> dict[str, np.ndarray]:
        return {"moved": action.copy(), "step": np.array([self._step], np.float32)}


def fail() -> None:
    raise RuntimeError("the third episode's fourth step")


def echo() -> Echo:
    return Echo()


def failing() -> Echo:
    return Echo(fail)


def kill_learner() -> None:
    parent = os.getppid()
    if b"a3c.actor_learner" in Path(f"/proc/{parent}/cmdline").read_bytes():
        os.kill(parent, signal.SIGKILL)


def killing() -> Echo:
    return Echo(kill_learner)


def huge() -> Echo:
    return Echo(scale=3e38)
