"""Gymnasium environments, and those of old gym, which are recognised by what they return."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from dreamer.envs.gym_spaces import ObservationCodec, action_space, has_image, resize
from dreamer.envs.spec import Env, EnvSettings, image_space
from dreamer.envs.wrappers import FrameEnv, NormalizeActions
from dreamer.errors import UserError, suggest

#: Modules that register environments when imported, by the start of the environments' ids.
MODULES = {
    "MiniGrid-": "minigrid", "BabyAI-": "minigrid", "Vizdoom": "vizdoom.gymnasium_wrapper",
    "ALE/": "ale_py",
}  # fmt: skip


def make_gym(env_id: str, settings: EnvSettings) -> Env:
    """Makes the environment `gym_<env_id>` from Gymnasium's registry, or from old gym's if only
    that is installed.

    An id such as "package:Name-v0" imports the package, which registers the environment; ids of
    `MODULES` need not name theirs.

    Raises:
        UserError: Gymnasium or a package of the environment is not installed, the id does not
            exist, or an image is asked of an environment that has none and takes no render_mode.
    """
    library = _import_library()
    if library.__name__ == "gymnasium":
        _register(env_id)
    try:
        env = _make(library.make, env_id, settings.image)
    except (library.error.Error, ImportError) as error:
        raise UserError(_why_not(env_id, error, library)) from error
    limit = settings.time_limit
    # The library's TimeLimit expects five values from a step, but an old environment returns four.
    # It would also end episodes before a longer limit of ours. GymEnv applies the limit instead.
    if type(env).__name__ == "TimeLimit":
        env, limit = env.env, limit or int(env._max_episode_steps)
    return adapt_gym(env, dataclasses.replace(settings, time_limit=limit))


def adapt_gym(env: Any, settings: EnvSettings) -> Env:
    """Adapts a Gymnasium or old gym environment; its actions are then in [-1, 1] or one-hot.

    Only the last frame of a step is rendered, and only if the observation has no image. The
    settings' time limit applies besides the environment's own.

    Args:
        env: Has `observation_space` (Box, Discrete, or a Dict of them; other kinds only without
            `state`), `action_space` (Box or Discrete), `reset()` and `step()`.
        settings: How to make the environment. With `image`, the observation's images are resized,
            or an image is rendered if there is none; with `state`, the other observations are flat
            float32 vectors.

    Raises:
        UserError: A space is of another kind, or no observation is left.
    """
    adapted = GymEnv(env, settings)
    return adapted if adapted.act_space.discrete else NormalizeActions(adapted)


class GymEnv(FrameEnv):
    """See `adapt_gym`; actions are still in the environment's own range."""

    def __init__(self, env: Any, settings: EnvSettings):
        super().__init__(settings, settings.time_limit)
        self._env = env
        self._observations = ObservationCodec(env.observation_space, settings)
        self.act_space = action_space(env.action_space)
        self.obs_space = dict(self._observations.spaces)
        self._rendered = settings.image and not self._observations.has_image
        self._size = settings.image_size
        if self._rendered:
            self.obs_space["image"] = image_space(self._size)
        if not self.obs_space:
            raise UserError(
                f"no observation is left: envs.image is {str(settings.image).lower()} and "
                f"envs.state is {str(settings.state).lower()}, but the observation space is "
                f"{env.observation_space}"
            )
        self._seeding = _seeding(env)
        self.info = {"seeding": self._seeding}
        if self._observations.left_out:
            self.info["left_out"] = " ".join(self._observations.left_out)
        own_limit = getattr(getattr(env, "spec", None), "max_episode_steps", None) or 0
        if limit := settings.time_limit or max(own_limit, 0):
            self.info["time_limit"] = str(limit)

    def _start(self, seed: int | None) -> None:
        arguments = {}
        if seed is not None:
            # Environments differ in the seeds they take; all take 31 bits.
            small = int(np.random.SeedSequence(seed).generate_state(1)[0] >> 1)
            if self._seeding == "reset":
                arguments["seed"] = small
            elif self._seeding == "seed":
                self._env.seed(small)
        result = self._env.reset(**arguments)
        with_info = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)
        self._shown = result[0] if with_info else result

    def _decode(self, action: np.ndarray) -> Any:
        self.act_space.check(action, "action")
        if not self.act_space.discrete:
            return action
        return int(action.argmax()) + int(getattr(self._env.action_space, "start", 0))

    def _advance(self, action: Any) -> tuple[float, bool, bool]:
        self._shown, reward, terminated, truncated = _unpack(self._env.step(action))
        return float(reward), terminated or truncated, terminated

    def _observe(self) -> dict[str, np.ndarray]:
        encoded = self._observations.encode(self._shown)
        if self._rendered:
            encoded["image"] = resize(self._render(), self._size)
        return encoded

    def _render(self) -> np.ndarray:
        try:
            frame = self._draw()
        except Exception as error:
            # Compares names, because old gym's DependencyNotInstalled is not Gymnasium's.
            names = {cls.__name__ for cls in type(error).__mro__}
            if not names & {"ImportError", "DependencyNotInstalled"}:
                raise
            raise UserError(
                f"the environment cannot be drawn, a package is not installed: {error}; install "
                "it, or set envs.image to false and envs.state to true"
            ) from error
        is_array = isinstance(frame, np.ndarray)
        if is_array and frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3:
            return frame
        returned = f"{frame.dtype} {list(frame.shape)}" if is_array else type(frame).__name__
        raise UserError(
            "the observation has no image and the environment renders none (render() returned "
            f"{returned}, expected uint8 [height, width, 3]): make it with "
            "render_mode='rgb_array', or set envs.image to false and envs.state to true"
        )

    def _draw(self) -> Any:
        env = self._env
        if getattr(env, "render_mode", None) == "rgb_array" or not _draws_by_mode(env):
            return env.render()
        # A wrapper without the argument could not pass it on.
        return (env if _takes(env.render, "mode") else env.unwrapped).render(mode="rgb_array")

    def close(self) -> None:
        super().close()
        self._env.close()


def _draws_by_mode(env: Any) -> bool:
    """Whether `render` takes the kind of picture as an argument, as in gym before 0.26."""
    inner = getattr(env, "unwrapped", env)  # a wrapper's render may name no arguments
    return "mode" in inspect.signature(inner.render).parameters


def _takes(function: Callable[..., Any], name: str) -> bool:
    """Whether `function` takes the argument `name`, by name or as one of **keywords."""
    parameters = inspect.signature(function).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _seeding(env: Any) -> str:
    """Returns how `env` takes a seed: "reset" (argument), "seed" (old gym's method) or "none"."""
    inner = getattr(env, "unwrapped", env)
    named = "seed" in inspect.signature(inner.reset).parameters
    if not named and callable(getattr(inner, "seed", None)):
        return "seed"
    return "reset" if _takes(inner.reset, "seed") else "none"


def _unpack(result: tuple[Any, ...]) -> tuple[Any, Any, bool, bool]:
    """Returns (obs, reward, terminated, truncated) of a step's 5-tuple or old gym's 4-tuple.

    Old gym sets info["TimeLimit.truncated"] if its time limit ended the episode.
    """
    if len(result) == 5:
        return result[0], result[1], bool(result[2]), bool(result[3])
    if len(result) == 4:
        obs, reward, done, info = result
        truncated = bool(done) and bool(info.get("TimeLimit.truncated", False))
        return obs, reward, bool(done) and not truncated, truncated
    raise UserError(
        f"step() returned {len(result)} values; expected (obs, reward, terminated, truncated, "
        "info), or old gym's (obs, reward, done, info)"
    )


def _import_library() -> Any:
    for name in ("gymnasium", "gym"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise UserError("gymnasium is not installed: pip install gymnasium")


def _register(env_id: str) -> None:
    """Imports the module in `MODULES` that registers `env_id`, if there is one."""
    for module in {module for start, module in MODULES.items() if env_id.startswith(start)}:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            package = module.partition(".")[0]
            raise UserError(
                f"gym_{env_id} needs a package that is not installed: pip install {package}"
            ) from error


def _make(make: Callable[..., Any], env_id: str, image: bool) -> Any:
    """Calls the library's `make`; without render_mode if the environment takes none but has images
    anyway."""
    try:
        mode = {"render_mode": "rgb_array"} if image else {}
        return make(env_id, disable_env_checker=True, **mode)
    except TypeError as error:
        if "must inherit from" in str(error):
            raise UserError(
                f"gym_{env_id} is no gymnasium.Env, so Gymnasium does not make it by its id: name "
                "the function or class that makes it instead, module:function"
            ) from error
        if not image or "render_mode" not in str(error):
            raise
        env = make(env_id, disable_env_checker=True)
        if has_image(env.observation_space) or _draws_by_mode(env):
            return env
        raise UserError(
            f"gym_{env_id} renders no image (it takes no render_mode), and its observation has "
            "none: set envs.image to false and envs.state to true"
        ) from error


def _why_not(env_id: str, error: Exception, library: Any) -> str:
    """Returns the message for an environment that the library's `make` could not make."""
    registry = library.envs.registration.registry
    # The import of a package that should register the environment may fail, too.
    unknown = isinstance(error, ModuleNotFoundError) and env_id.rpartition(":")[2] not in registry
    if unknown or isinstance(error, library.error.UnregisteredEnv):
        near = suggest(env_id, registry, most=3, prefix="gym_")
        return (
            f"unknown task 'gym_{env_id}'{near}; {library.__name__.capitalize()} says: {error} If "
            "a package of its own registers it, name that too: gym_<package>:<EnvId>"
        )
    if isinstance(error, (ImportError, library.error.DependencyNotInstalled)):
        return f"gym_{env_id} needs a package that is not installed: {error}"
    return f"gym_{env_id} cannot be made: {error}"
