"""Gymnasium environments, and old gym ones, which are recognised by what they return."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dreamer.envs.gym_spaces import ActionCodec, ObservationCodec, has_image, resize
from dreamer.envs.spec import Env, Space, Timestep, make_timestep
from dreamer.envs.wrappers import NormalizeActions
from dreamer.errors import UserError, suggest


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

    def reset(self, seed: int | None = None) -> Timestep:
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
        return make_timestep(self._observe(result[0] if new_style else result), is_first=True)

    def step(self, action: np.ndarray) -> Timestep:
        if self._over:
            raise RuntimeError("step() after the episode's last timestep: call reset() first")
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
        return make_timestep(observed, total, is_last=self._over, is_terminal=terminated)

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


#: Packages that register environments only when imported: start of an id -> (module, pip's name).
PACKAGES = {
    "MiniGrid-": ("minigrid", "minigrid"),
    "BabyAI-": ("minigrid", "minigrid"),
    "Vizdoom": ("vizdoom.gymnasium_wrapper", "vizdoom"),
    "ALE/": ("ale_py", "ale-py"),
}


def make_gym(env_id: str, *, image: bool, time_limit: int, **settings: Any) -> Env:
    """Returns `gym_<env_id>` from Gymnasium's registry, which an id such as "package:Name-v0"
    completes by importing the package; ids of the packages in `PACKAGES` need not name theirs.
    Where Gymnasium is not installed but old gym is, from gym's.

    Raises:
        UserError: Gymnasium or what the environment needs is not installed, no such id, or an
            image is wanted of an environment that has none and takes no render_mode.
    """
    library = _import_library()
    if library.__name__ == "gymnasium":
        _import_package(env_id)
    try:
        env = _make(library.make, env_id, {"render_mode": "rgb_array"} if image else {})
    except (library.error.Error, ImportError) as error:
        raise UserError(_why_not(env_id, error, library)) from error
    env, own_limit = _without_limit(env)
    return adapt_gym(env, image=image, time_limit=time_limit or own_limit, **settings)


def _import_library() -> Any:
    try:
        return importlib.import_module("gymnasium")
    except ImportError as error:
        try:
            return importlib.import_module("gym")
        except ImportError:
            raise UserError("gymnasium is not installed: pip install gymnasium") from error


def _make(make: Callable[..., Any], env_id: str, options: dict[str, Any]) -> Any:
    """The environment, made without render_mode where it takes none and shows images anyway."""
    checked = "disable_env_checker" in inspect.signature(make).parameters  # not in gym before 0.24
    common = {"disable_env_checker": True} if checked else {}
    try:
        return make(env_id, **common, **options)
    except TypeError as error:
        if "must inherit from" in str(error):
            raise UserError(
                f"gym_{env_id} is no gymnasium.Env, so Gymnasium does not make it by its id: name "
                "the function or class that makes it instead, module:function"
            ) from error
        if not options or "render_mode" not in str(error):
            raise
        env = make(env_id, **common)
        if has_image(env.observation_space) or draws_by_mode(env):
            return env
        raise UserError(
            f"gym_{env_id} renders no image (it takes no render_mode), and its observation has "
            "none: set envs.image to false and envs.state to true"
        ) from error


def _without_limit(env: Any) -> tuple[Any, int]:
    """The environment without the library's own TimeLimit, and that one's steps; 0 if it has none.

    TimeLimit unpacks five values from a step, which an old environment does not return, and would
    end episodes before a longer limit of ours. `GymEnv` does the same for either kind.
    """
    outer, wrapper = None, env
    while wrapper is not getattr(wrapper, "unwrapped", wrapper):
        if type(wrapper).__name__ == "TimeLimit":
            limit = int(wrapper._max_episode_steps)
            if outer is None:
                return wrapper.env, limit
            outer.env = wrapper.env
            return env, limit
        outer, wrapper = wrapper, wrapper.env
    return env, 0


def _why_not(env_id: str, error: Exception, library: Any) -> str:
    """What to say of an environment that the library's `make` did not make."""
    registry = library.envs.registration.registry
    registry = getattr(registry, "env_specs", registry)  # gym before 0.26
    known = env_id.rpartition(":")[2] in registry
    # Where a package that should register it cannot be imported, this is a ModuleNotFoundError too.
    missing = isinstance(error, ImportError) and (
        known or not isinstance(error, ModuleNotFoundError)
    )
    if missing or isinstance(error, library.error.DependencyNotInstalled):
        return f"gym_{env_id} needs a package that is not installed: {error}"
    if isinstance(error, (library.error.UnregisteredEnv, ImportError)):
        near = suggest(env_id, registry, most=3, prefix="gym_")
        name = library.__name__.capitalize()
        return (
            f"unknown task 'gym_{env_id}'{near}; {name} says: {error} If a package of its own "
            "registers it, name that too: gym_<package>:<EnvId>"
        )
    return f"gym_{env_id} cannot be made: {error}"


def _import_package(env_id: str) -> None:
    """Imports the package of `PACKAGES` that registers `env_id`, if it is one of theirs."""
    for start, (module, package) in PACKAGES.items():
        if not env_id.startswith(start):
            continue
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise UserError(
                f"gym_{env_id} needs a package that is not installed: pip install {package}"
            ) from error
