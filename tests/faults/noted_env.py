"""Environments that note which episodes begin and end, for the tests that kill runs.

They append to the file that DREAMER_TEST_NOTES names. A kill of the run cannot take that back, and
it comes before the run hears of the episode's end.
"""

from __future__ import annotations

import os

import counting_env
import faulty_env
import numpy as np

from dreamer.envs.make import make_env
from dreamer.envs.spec import Env, Timestep, check_timestep
from dreamer.envs.wrappers import Wrapper


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


def counting() -> Noted:
    return Noted(counting_env.make())


def faulty() -> Noted:
    return Noted(faulty_env.make())


def cartpole() -> Noted:
    """DeepMind Control from images; episodes of 80 frames."""
    return Noted(make_env("dmc_cartpole_balance", time_limit=80, shadow_size=256))


def long_cartpole() -> Noted:
    """The same with 200 frames."""
    return Noted(make_env("dmc_cartpole_balance", time_limit=200, shadow_size=512))
