"""Environments whose timesteps contain their own index, for tests of alignment.

Workers load this file by its path, like a user's own file.
"""

import itertools
import os
import signal
import sys
import time

import numpy as np

from dreamer.envs import dmc
from dreamer.envs.dmc import DMC
from dreamer.envs.spec import EnvSettings, Space, Timestep, make_timestep
from dreamer.envs.wrappers import NormalizeActions

F32 = np.dtype(np.float32)


class Counting:
    """Timestep t has t in every pixel, the reward t, and the action that led to it.

    An episode has 5 to 9 steps, drawn from its seed; its end is terminal if `terminal`.
    """

    def __init__(self, terminal: bool = True, size: int = 8):
        self.obs_space = {
            "image": Space((size, size, 3), np.dtype(np.uint8), 0, 255),
            "echo": Space((2,), F32, -1.0, 1.0),
            "length": Space((1,), F32),
        }
        self.act_space = Space((2,), F32, -1.0, 1.0)
        self.action_repeat = 1
        tensorflow = sys.modules.get("tensorflow") is not None
        self.info = {"pid": str(os.getpid()), "tensorflow": str(tensorflow),
                     "openmp": os.environ.get("OMP_NUM_THREADS", "")}  # fmt: skip
        self._terminal = terminal
        self._rng = np.random.default_rng()
        self._step = self._length = 0

    def reset(self, seed: int | None = None) -> Timestep:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._length = int(self._rng.integers(5, 10))
        self._step = 0
        return make_timestep(self._observe(np.zeros(2, F32)), is_first=True)

    def step(self, action: np.ndarray) -> Timestep:
        if self._step == self._length:
            raise RuntimeError("the episode is over")
        self._step += 1
        last = self._step == self._length
        return make_timestep(
            self._observe(action), self._step, is_last=last, is_terminal=last and self._terminal
        )

    def _observe(self, action: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "image": np.full(self.obs_space["image"].shape, self._step, np.uint8),
            "echo": np.array(action, F32),
            "length": np.array([self._length], F32),
        }

    def close(self) -> None:
        pass


def counting_time_limit() -> Counting:
    return Counting(terminal=False)


class Misbehaving(Counting):
    """At step 2, has the fault that the environment variable DREAMER_TEST_FAULT names."""

    def step(self, action: np.ndarray) -> Timestep:
        timestep = super().step(action)
        fault = os.environ.get("DREAMER_TEST_FAULT")
        if self._step != 2:
            return timestep
        if fault == "raise":
            raise ZeroDivisionError("physics went wrong")
        if fault == "quit":
            sys.exit(0)
        if fault == "exit":
            print("the last words", file=sys.stderr)
            os._exit(3)
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "hang":
            time.sleep(1000)
        changed = {
            "shape": {"image": timestep["image"][:4]},
            "dtype": {"image": timestep["image"].astype(np.float32)},
            "nan": {"echo": np.array([np.nan, 0], F32)},
            "inf": {"reward": np.asarray(np.inf, F32)},
            "keys": {"extra": np.zeros(1, F32)},
        }
        return {**timestep, **changed[fault or "keys"]}


class Chatty(Counting):
    """Prints to both standard streams at every step, which takes DREAMER_TEST_PAUSE seconds."""

    def step(self, action: np.ndarray) -> Timestep:
        time.sleep(float(os.environ.get("DREAMER_TEST_PAUSE", "0")))
        print("x" * 10_000)
        print("y" * 10_000, file=sys.stderr, flush=True)
        return super().step(action)


def counts_renders() -> NormalizeActions:
    """DeepMind Control whose first pixel counts the rendered frames."""
    env = DMC("cartpole_balance", EnvSettings(action_repeat=4, shadow_size=64))
    render, drawn = env._camera.render, itertools.count(1)

    def count() -> np.ndarray:
        frame = render().copy()
        frame[0, 0] = next(drawn)
        return frame

    env._camera.render = count
    return NormalizeActions(env)


def not_an_env() -> str:
    return "no environment"


class BothWays(DMC):
    """Also renders with dm_control's own method, and shows the difference."""

    def __init__(self, domain: str, task: str):
        super().__init__(f"{domain}_{task}", EnvSettings())
        self._plain = dmc._suite().load(domain, task, {"random": 0})

    def _observe(self):
        image = super()._observe()["image"]
        with self._plain.physics.reset_context():
            self._plain.physics.set_state(self._env.physics.get_state())
        frame = self._plain.physics.render(64, 64, int(self.info["camera"]))
        return {"image": np.abs(frame.astype(np.int64) - image).astype(np.uint8)}


def both_ways_walker() -> NormalizeActions:
    return NormalizeActions(BothWays("walker", "walk"))


def both_ways_quadruped() -> NormalizeActions:
    return NormalizeActions(BothWays("quadruped", "walk"))
