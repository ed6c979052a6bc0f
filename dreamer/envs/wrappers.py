"""What environments of different suites share: the range of actions, time limits, repeats."""

from __future__ import annotations

import numpy as np

from dreamer.envs.spec import Env, Space, Timestep

#: From here on a bound means that there is none (MuJoCo writes 1e10 for an unlimited control).
UNBOUNDED = 1e10


class Wrapper:
    """An environment that passes everything on to the one inside it."""

    def __init__(self, env: Env):
        self.env = env
        self.obs_space = env.obs_space
        self.act_space = env.act_space
        self.action_repeat = env.action_repeat
        self.info = env.info

    @property
    def goes_on(self) -> bool:
        return bool(getattr(self.env, "goes_on", False))

    def reset(self, seed: int | None = None) -> Timestep:
        return self.env.reset(seed)

    def step(self, action: np.ndarray) -> Timestep:
        return self.env.step(action)

    def close(self) -> None:
        self.env.close()


class NormalizeActions(Wrapper):
    """Maps actions [A] in [-1, 1] linearly to the bounds of the environment inside.

    An element with one finite bound has a range of 2 from there on, one with none is passed on as
    it is; integers are rounded to. Actions outside [-1, 1] are clipped.
    """

    def __init__(self, env: Env):
        super().__init__(env)
        shape = env.act_space.shape
        low = np.broadcast_to(np.asarray(env.act_space.low, np.float64), shape)
        high = np.broadcast_to(np.asarray(env.act_space.high, np.float64), shape)
        below, above = np.abs(low) < UNBOUNDED, np.abs(high) < UNBOUNDED
        self._low = np.where(below, low, np.where(above, high - 2.0, -1.0))
        self._high = np.where(above, high, np.where(below, low + 2.0, 1.0))
        self.act_space = Space((int(np.prod(shape)),), np.dtype(np.float32), -1.0, 1.0)

    def step(self, action: np.ndarray) -> Timestep:
        self.act_space.check(action, "action")
        unit = (np.clip(action, -1.0, 1.0).astype(np.float64).reshape(self._low.shape) + 1.0) / 2.0
        native = self._low + unit * (self._high - self._low)
        dtype = self.env.act_space.dtype
        return self.env.step((np.rint(native) if dtype.kind in "iu" else native).astype(dtype))


class ActionRepeat(Wrapper):
    """Holds each action for `action_repeat` steps of the environment inside.

    Rewards are summed and an episode's end ends the repeat. Environments of this package that
    render repeat by themselves instead, so as to render once.
    """

    def __init__(self, env: Env, action_repeat: int):
        super().__init__(env)
        self._action_repeat = action_repeat
        self.action_repeat = env.action_repeat * action_repeat

    def step(self, action: np.ndarray) -> Timestep:
        reward = 0.0
        for _ in range(self._action_repeat):
            timestep = self.env.step(action)
            reward += float(timestep["reward"])
            if timestep["is_last"]:
                break
        return {**timestep, "reward": np.asarray(reward, np.float32)}


class TimeLimit(Wrapper):
    """Ends an episode after `frames` frames: the timestep is the last one, but not terminal."""

    def __init__(self, env: Env, frames: int):
        super().__init__(env)
        self._limit = frames
        self._frames = 0

    def reset(self, seed: int | None = None) -> Timestep:
        self._frames = 0
        return self.env.reset(seed)

    def step(self, action: np.ndarray) -> Timestep:
        if self._frames >= self._limit:
            raise RuntimeError("step() after the episode's last timestep: call reset() first")
        timestep = self.env.step(action)
        self._frames += self.action_repeat
        if self._frames >= self._limit:
            timestep = {**timestep, "is_last": np.asarray(True)}
        return timestep
