"""What environments of different suites share: frames, action ranges, time limits, image sizes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dreamer.envs.spec import Env, EnvSettings, Space, Timestep, make_timestep
from dreamer.errors import UserError

#: A bound of at least this size means no bound: MuJoCo writes 1e10 for an unlimited control.
UNBOUNDED = 1e10


class FrameEnv:
    """Base class of a suite's environment: holds each action for several frames.

    A subclass sets the attributes of `Env` and implements `_start`, `_advance` and `_observe`.
    An episode has at most `time_limit` frames; 0: no limit. Reaching it is not terminal. Raises
    UserError if the settings leave no observation.
    """

    obs_space: dict[str, Space]
    act_space: Space
    info: dict[str, str]
    goes_on = False

    def __init__(self, settings: EnvSettings, time_limit: int):
        if not (settings.image or settings.state):
            raise UserError("no observation is left: set envs.image or envs.state to true")
        self.action_repeat = settings.action_repeat
        self._limit = time_limit or math.inf
        self._frames = 0
        self._over = True

    def reset(self, seed: int | None = None) -> Timestep:
        if not self.goes_on:
            self._frames = 0
        self._start(seed)
        self._over = False
        return make_timestep(self._observe(), is_first=True)

    def step(self, action: np.ndarray) -> Timestep:
        self._check_running()
        native = self._decode(action)
        reward = 0.0
        for _ in range(self.action_repeat):
            self._frames += 1
            gained, ended, terminal = self._advance(native)
            reward += gained
            self._over = ended or self._frames >= self._limit
            if self._over:
                break
        return make_timestep(self._observe(), reward, is_last=self._over, is_terminal=terminal)

    def _check_running(self) -> None:
        if self._over:
            raise RuntimeError("step() after the episode's last timestep: call reset() first")

    def _start(self, seed: int | None) -> None:
        """Starts an episode."""
        raise NotImplementedError

    def _decode(self, action: np.ndarray) -> Any:
        """Turns an action of `act_space` into one for `_advance`."""
        return action

    def _advance(self, action: Any) -> tuple[float, bool, bool]:
        """Simulates a frame; returns reward, whether the episode ended, and whether terminally."""
        raise NotImplementedError

    def _observe(self) -> dict[str, np.ndarray]:
        """Returns the present observations."""
        raise NotImplementedError

    def close(self) -> None:
        self._over = True


class Wrapper:
    """An environment that passes every call on to the one inside it."""

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

    An element with one finite bound gets a range of length 2 that begins there. An element without
    a finite bound is passed on unchanged. In both cases `info` says the ranges. Integer actions are
    rounded. Actions outside [-1, 1] are clipped.
    """

    def __init__(self, env: Env):
        super().__init__(env)
        low, high = env.act_space.bounds()
        has_low, has_high = np.abs(low) < UNBOUNDED, np.abs(high) < UNBOUNDED
        self._low = np.where(has_low, low, np.where(has_high, high - 2.0, -1.0))
        self._high = np.where(has_high, high, np.where(has_low, low + 2.0, 1.0))
        self.act_space = Space((low.size,), np.dtype(np.float32), -1.0, 1.0)
        if not (has_low & has_high).all():
            open_ended = np.argwhere(~(has_low & has_high).reshape(-1))[:, 0]
            pairs = np.stack([self._low.reshape(-1), self._high.reshape(-1)], 1)[open_ended]
            ranges = dict.fromkeys(f"[{low:g}, {high:g}]" for low, high in pairs)
            self.info = {**env.info, "range of actions without bounds": " ".join(ranges)}

    def step(self, action: np.ndarray) -> Timestep:
        self.act_space.check(action, "action")
        unit = (np.clip(action, -1.0, 1.0).astype(np.float64).reshape(self._low.shape) + 1.0) / 2.0
        native = self._low + unit * (self._high - self._low)
        dtype = self.env.act_space.dtype
        return self.env.step((np.rint(native) if dtype.kind in "iu" else native).astype(dtype))


class Repeat(Wrapper):
    """Holds each action for several steps of the environment inside, and limits its episodes.

    Rewards are summed. The episode's end also ends the repeat. At the time limit a timestep is
    last, but not terminal. Our own suites do both themselves, to render only the last frame.

    Args:
        env: The environment inside.
        action_repeat: Steps of the environment inside in one step of this one.
        time_limit: Frames of an episode; 0: no limit.
    """

    def __init__(self, env: Env, action_repeat: int, time_limit: int):
        super().__init__(env)
        self.action_repeat = env.action_repeat * action_repeat
        self._limit = time_limit or math.inf
        self._frames = 0

    def reset(self, seed: int | None = None) -> Timestep:
        self._frames = 0
        return self.env.reset(seed)

    def step(self, action: np.ndarray) -> Timestep:
        if self._frames >= self._limit:
            raise RuntimeError("step() after the episode's last timestep: call reset() first")
        reward = 0.0
        for _ in range(self.action_repeat // self.env.action_repeat):
            timestep = self.env.step(action)
            reward += float(timestep["reward"])
            if timestep["is_last"]:
                break
        self._frames += self.action_repeat
        is_last = np.asarray(timestep["is_last"] | (self._frames >= self._limit))
        return {**timestep, "reward": np.asarray(reward, np.float32), "is_last": is_last}


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes an image, uint8 [h, w] or [h, w, C], to uint8 [size, size, C], C = 3 if it was 1.

    Each new pixel is the mean over the area that it covers.
    """
    image = image if image.ndim == 3 else image[:, :, None]
    if image.shape[2] == 1:
        image = np.broadcast_to(image, (*image.shape[:2], 3))
    if image.shape[:2] == (size, size):
        return np.array(image)
    from PIL import Image

    # Pillow's images have at most 3 channels without alpha, by which it would weight the others.
    threes = [image] if image.shape[2] == 3 else np.moveaxis(image, 2, 0)
    wholes = [Image.fromarray(np.ascontiguousarray(part)) for part in threes]
    parts = [np.array(whole.resize((size, size), Image.Resampling.BOX)) for whole in wholes]
    return parts[0] if len(parts) == 1 else np.stack(parts, -1)
