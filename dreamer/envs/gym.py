"""Gymnasium environments, and old gym ones, which are recognised by what they return."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dreamer.envs.gym_spaces import ActionCodec, ObservationCodec, resize
from dreamer.envs.spec import Env, Record, Space, make_record
from dreamer.envs.wrappers import NormalizeActions
from dreamer.errors import UserError


def adapt_gym(
    env: Any,
    *,
    action_repeat: int = 1,
    time_limit: int = 0,
    image: bool = True,
    state: bool = False,
    image_size: int = 64,
) -> Env:
    """Returns a Gymnasium or old gym environment as one of ours: actions in [-1, 1] or one-hot.

    Args:
        env: has `observation_space` (Box, Discrete, or a Dict of them; other kinds only where
            `state` is false), `action_space` (Box or Discrete), `reset()` and `step()`.
        action_repeat: frames an action is held; an image is rendered for the last one only.
        time_limit: frames of an episode, besides the environment's own limit; 0 for none.
        image: observe the observation's images, or where it has none, render one.
        state: observe the other observations, as flat float32 vectors.
        image_size: images of another size are resized to this one.

    Raises:
        UserError: a space of another kind, or no observation is left.
    """
    adapted = GymEnv(env, action_repeat, time_limit, image, state, image_size)
    return adapted if adapted.act_space.discrete else NormalizeActions(adapted)


class GymEnv:
    """See `adapt_gym`; actions are still in the environment's own range."""

    def __init__(
        self, env: Any, action_repeat: int, time_limit: int, image: bool, state: bool,
        image_size: int,
    ):  # fmt: skip
        self._env = env
        self._limit = time_limit or math.inf
        self._frames = 0
        self._over = True
        self.action_repeat = action_repeat
        self._observation = ObservationCodec(env.observation_space, image, state, image_size)
        self._action = ActionCodec(env.action_space)
        self.act_space = self._action.space
        self.obs_space = dict(self._observation.spaces)
        self._size = image_size if image and not self._observation.has_image else 0
        if self._size:
            self.obs_space["image"] = Space((self._size, self._size, 3), np.dtype(np.uint8), 0, 255)
        if not self.obs_space:
            raise UserError(
                f"no observation is left: envs.image is {str(image).lower()} and envs.state is "
                f"{str(state).lower()}, but the observation space is {env.observation_space}"
            )
        self._seeding = _seeding(env)
        self.info = {"seeding": self._seeding}
        if self._observation.left_out:
            self.info["left_out"] = " ".join(self._observation.left_out)
        own_limit = getattr(getattr(env, "spec", None), "max_episode_steps", None) or 0
        if time_limit or own_limit > 0:
            self.info["time_limit"] = str(time_limit or own_limit)

    def reset(self, seed: int | None = None) -> Record:
        # Environments differ in the seeds they take; all take 31 bits.
        small = None if seed is None else int(_hash(seed) >> 1)
        if small is not None and self._seeding == "reset":
            result = self._env.reset(seed=small)
        else:
            if small is not None and self._seeding == "seed":
                self._env.seed(small)
            result = self._env.reset()
        new_style = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)
        self._frames = 0
        self._over = False
        return make_record(self._observe(result[0] if new_style else result), is_first=True)

    def step(self, action: np.ndarray) -> Record:
        if self._over:
            raise RuntimeError("step() after the episode's last record: call reset() first")
        native = self._action.decode(action)
        total = 0.0
        for _ in range(self.action_repeat):
            obs, reward, terminated, truncated = _unpack(self._env.step(native))
            self._frames += 1
            total += float(reward)
            self._over = terminated or truncated or self._frames >= self._limit
            if self._over:
                break
        observed = self._observe(obs)
        return make_record(observed, total, is_last=self._over, is_terminal=terminated)

    def _observe(self, obs: Any) -> dict[str, np.ndarray]:
        encoded = self._observation.encode(obs)
        if self._size:
            encoded["image"] = resize(self._render(), self._size)
        return encoded

    def _render(self) -> np.ndarray:
        try:
            frame = self._draw()
        except Exception as error:
            if not _needs_package(error):
                raise
            raise UserError(
                f"the environment cannot be drawn, a package is not installed: {error}; install "
                "it, or set envs.image to false and envs.state to true"
            ) from error
        if isinstance(frame, list):  # render_mode "rgb_array_list"
            frame = frame[-1] if frame else None
        valid = isinstance(frame, np.ndarray) and frame.ndim == 3 and frame.shape[2] == 3
        if not valid or frame.dtype != np.uint8:
            raise UserError(
                "the observation has no image and the environment renders none (render() returned "
                f"{_brief(frame)}, expected uint8 [height, width, 3]): make it with "
                "render_mode='rgb_array', or set envs.image to false and envs.state to true"
            )
        return frame

    def _draw(self) -> Any:
        if getattr(self._env, "render_mode", None) != "rgb_array" and draws_by_mode(self._env):
            # Old gym. A wrapper that takes no mode could not pass it on.
            outer = _parameter(self._env.render, "mode")
            return (self._env if outer else self._env.unwrapped).render(mode="rgb_array")
        return self._env.render()

    def close(self) -> None:
        self._env.close()


def _needs_package(error: Exception) -> bool:
    """By name, since old gym's DependencyNotInstalled is not Gymnasium's."""
    return isinstance(error, ImportError) or any(
        cls.__name__ == "DependencyNotInstalled" for cls in type(error).__mro__
    )


def draws_by_mode(env: Any) -> bool:
    """Whether the picture wanted is named to `render`, as in gym before 0.26."""
    inner = getattr(env, "unwrapped", env)  # wrappers pass on what they do not name
    return "mode" in inspect.signature(inner.render).parameters


def _parameter(function: Callable[..., Any], name: str) -> bool:
    """Whether `function` takes `name`, if only among keywords that it does not name."""
    parameters = inspect.signature(function).parameters
    return name in parameters or any(
        one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()
    )


def _brief(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__


def _hash(seed: int) -> np.uint32:
    return np.random.SeedSequence(seed).generate_state(1)[0]


def _seeding(env: Any) -> str:
    """Returns how `env` takes a seed: "reset" (an argument), "seed" (old gym's method), "none"."""
    inner = getattr(env, "unwrapped", env)
    if "seed" in inspect.signature(inner.reset).parameters:
        return "reset"
    if callable(getattr(inner, "seed", None)):
        return "seed"
    return "reset" if _parameter(inner.reset, "seed") else "none"


def _unpack(result: tuple[Any, ...]) -> tuple[Any, Any, bool, bool]:
    """Returns (obs, reward, terminated, truncated) from a step's 5-tuple or old gym's 4-tuple.

    Old gym marks an episode that its time limit ended in info["TimeLimit.truncated"].
    """
    if len(result) == 5:
        obs, reward, terminated, truncated, _ = result
        return obs, reward, bool(terminated), bool(truncated)
    if len(result) == 4:
        obs, reward, done, info = result
        truncated = bool(done) and bool(info.get("TimeLimit.truncated", False))
        return obs, reward, bool(done) and not truncated, truncated
    raise UserError(
        f"step() returned {len(result)} values; expected (obs, reward, terminated, truncated, "
        "info), or old gym's (obs, reward, done, info)"
    )
