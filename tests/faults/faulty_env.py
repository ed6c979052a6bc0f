"""The counting environment with faults; an episode's seed determines its fault and the step.
Other environments note which episodes begin and end, for the tests that kill runs.

DREAMER_TEST_FAULTS is a probability of a fault at a step, or "always". DREAMER_TEST_KINDS says
which kinds there are, of those in KINDS. DREAMER_TEST_CHILD makes the environment start a process
of its own, as games do. The notes go to the file that DREAMER_TEST_NOTES names. A kill of the run
cannot take them back, and they come before the run hears of the episode's end.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable

import numpy as np
from counting_env import CountingEnv, episode_length

from dreamer.envs.make import make_env
from dreamer.envs.spec import Env, Timestep, check_timestep
from dreamer.envs.wrappers import Wrapper

KINDS = ("raise", "exit", "kill", "nan", "infinite", "shape")


def faulty_step(seed: int) -> int | None:
    """The step of that episode at which a fault comes, if any does; 0 is the reset."""
    faults = os.environ.get("DREAMER_TEST_FAULTS", "0")
    if faults == "always":
        return 2
    rng = np.random.default_rng([seed, 1])
    steps = np.flatnonzero(rng.random(episode_length(seed) + 1) < float(faults))
    return int(steps[0]) if len(steps) else None


class FaultyEnv(CountingEnv):
    """Raises, dies, hangs or returns nonsense at its `faulty_step`."""

    def __init__(self) -> None:
        super().__init__()
        if "DREAMER_TEST_CHILD" in os.environ:
            self._child = subprocess.Popen(["sleep", "900"])
            self.info = {"child": str(self._child.pid)}

    def reset(self, seed: int | None = None) -> Timestep:
        return self._perhaps(super().reset(seed))

    def step(self, action: np.ndarray) -> Timestep:
        return self._perhaps(super().step(action))

    def _perhaps(self, timestep: Timestep) -> Timestep:
        if faulty_step(self._seed) != self._step:
            return timestep
        kinds = os.environ.get("DREAMER_TEST_KINDS", ",".join(KINDS)).split(",")
        return FAULTS[kinds[self._seed % len(kinds)]](timestep)


def _raise(timestep: Timestep) -> Timestep:
    raise ZeroDivisionError("physics went wrong")


FAULTS: dict[str, Callable[[Timestep], Timestep]] = {
    "raise": _raise,
    "exit": lambda timestep: os._exit(3),
    "kill": lambda timestep: os.kill(os.getpid(), signal.SIGKILL) or timestep,
    "hang": lambda timestep: time.sleep(900) or timestep,
    "nan": lambda timestep: {**timestep, "vector": np.full_like(timestep["vector"], np.nan)},
    "infinite": lambda timestep: {**timestep, "reward": np.asarray(np.inf, np.float32)},
    # Finite, but its square is not.
    "huge": lambda timestep: {**timestep, "reward": np.asarray(3e38, np.float32)},
    "shape": lambda timestep: {**timestep, "image": timestep["image"][:4]},
}


def make() -> FaultyEnv:
    return FaultyEnv()


class Noted(Wrapper):
    """Notes "begun <seed>", and "ended <seed>" for an episode with correct timesteps."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self._seed: int | None = None

    def reset(self, seed: int | None = None) -> Timestep:
        self._seed = seed
        self._note("begun")
        return super().reset(seed)

    def step(self, action: np.ndarray) -> Timestep:
        timestep = super().step(action)
        if timestep["is_last"]:
            check_timestep(timestep, self.obs_space)
            self._note("ended")
        return timestep

    def _note(self, what: str) -> None:
        descriptor = os.open(os.environ["DREAMER_TEST_NOTES"], os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, f"{what} {self._seed}\n".encode())
        os.close(descriptor)


def noted_counting() -> Noted:
    return Noted(CountingEnv())


def noted_faulty() -> Noted:
    return Noted(FaultyEnv())


def noted_cartpole() -> Noted:
    """DeepMind Control from images; episodes of 80 frames."""
    return Noted(make_env("dmc_cartpole_balance", time_limit=80, shadow_size=256))


def noted_long_cartpole() -> Noted:
    """The same with 200 frames."""
    return Noted(make_env("dmc_cartpole_balance", time_limit=200, shadow_size=512))
