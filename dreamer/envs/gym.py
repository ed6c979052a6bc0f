"""Gymnasium environments, and those of old gym, which are recognised by what they return."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dreamer.envs.spec import SCALARS, Env, EnvSettings, Space, image_space, one_hot_space
from dreamer.envs.wrappers import FrameEnv, NormalizeActions, resize
from dreamer.errors import UserError, suggest

#: Modules that register environments when imported, by the start of the environments' ids.
MODULES = {
    "MiniGrid-": "minigrid", "BabyAI-": "minigrid", "Vizdoom": "vizdoom.gymnasium_wrapper",
    "ALE/": "ale_py",
}  # fmt: skip
#: The least height and width of an image, in pixels. A smaller array is a grid of symbols, such as
#: MiniGrid's 7x7x3: enlarged to an image and divided by 255, its symbols would look alike.
LEAST_IMAGE = 16


def make_gym(env_id: str, settings: EnvSettings) -> Env:
    """Makes the environment `gym_<env_id>` from Gymnasium's registry, or from old gym's if only
    that is installed.

    An id such as "package:Name-v0" imports the package, which registers the environment; ids of
    `MODULES` need not name theirs.

    Raises UserError if the id is unknown, or Gymnasium or the environment's package is missing.
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

    Raises UserError if a space is of another kind, or no observation is left.
    """
    adapted = GymEnv(env, settings)
    return adapted if adapted.act_space.discrete else NormalizeActions(adapted)


class GymEnv(FrameEnv):
    """See `adapt_gym`; actions are still in the environment's own range.

    Images (uint8 [height, width, channels] or [channels, height, width] of 1 or 3 channels, or
    [height, width], both at least 16) become uint8 [image_size, image_size, 3]. Vectors of bytes
    (uint8 [n], 0 to 255) are scaled to [-0.5, 0.5]. Other boxes become flat float32 vectors.
    Discrete values become one-hot vectors. A single observation is named "image" or "observation".
    Nested names are joined by a slash. A vector named "image" is renamed to "image_vector". Texts
    are left out; without `state`, so are spaces of unknown kinds.
    """

    def __init__(self, env: Any, settings: EnvSettings):
        super().__init__(settings, settings.time_limit)
        self._env, self._size, self.obs_space = env, settings.image_size, {}
        self._seeding = _seeding(env)
        self.info = {"seeding": self._seeding}
        self.act_space = _action_space(env.action_space)
        kind = _kind_of(env.observation_space)
        self._single = {"Dict": "", "image": "image"}.get(kind, "observation")
        self._encoders: dict[str, tuple[str, Callable]] = {}
        for name, part in _flatten(env.observation_space, self._single):
            self._add_observation(name, part, settings)
        self._rendered = settings.image and not _has_image(env.observation_space)
        if self._rendered:
            self.obs_space["image"] = image_space(self._size)
        if not self.obs_space:
            raise UserError(
                f"no observation is left: envs.image is {str(settings.image).lower()} and "
                f"envs.state is {str(settings.state).lower()}, but the observation space is "
                f"{env.observation_space}"
            )
        own_limit = getattr(getattr(env, "spec", None), "max_episode_steps", None) or 0
        if limit := settings.time_limit or max(own_limit, 0):
            self.info["time_limit"] = str(limit)

    def _add_observation(self, name: str, space: Any, settings: EnvSettings) -> None:
        """Adds an observation to `obs_space`, unless the settings leave it out."""
        kind = _kind_of(space)
        if kind not in ("image", "Box", "Discrete"):
            if settings.state and kind != "text":
                raise UserError(
                    f"observations of the space {space} are not supported: expected Box, "
                    "Discrete or a Dict of them, or envs.state false, which leaves them out"
                )
            self.info["left_out"] = f"{self.info.get('left_out', '')} {name}".strip()
        elif settings.image if kind == "image" else settings.state:
            if name in SCALARS or name in ("action", "discount"):
                raise UserError(
                    f"an observation is named {name!r}, a timestep's own key: rename it"
                )
            # Only an image may have the key "image".
            key = f"{name}_vector" if name == "image" and kind != "image" else name
            self.obs_space[key], encode = _codec(name, space, self._size)
            self._encoders[name] = key, encode

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
        values = dict(_flatten(self._shown, self._single))
        encoded = {
            key: encode(np.asarray(values[name])) for name, (key, encode) in self._encoders.items()
        }
        if self._rendered:
            encoded["image"] = resize(self._render(), self._size)
        return encoded

    def _render(self) -> np.ndarray:
        try:
            frame = self._draw()
        except NotImplementedError:
            frame = None
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
    """Whether `render` takes the kind of image as an argument, as in gym before 0.26."""
    inner = getattr(env, "unwrapped", env)  # a wrapper's render may name no arguments
    return "mode" in inspect.signature(inner.render).parameters


def _has_image(space: Any) -> bool:
    """Whether an image is among the observations of `space`."""
    return any(_kind_of(part) == "image" for _, part in _flatten(space, ""))


def _kind_of(space: Any) -> str:
    """Returns "image", "Box", "Discrete", "Dict" or "text", else the name of the space's class.

    Compares names, because old gym's classes are not Gymnasium's, and either may be missing.
    """
    if (dtype := getattr(space, "dtype", None)) is not None and np.dtype(dtype).kind == "U":
        return "text"  # Gymnasium's Text, or a package's own space (MiniGrid)
    names = [cls.__name__ for cls in type(space).__mro__]
    kind = next((name for name in names if name in ("Box", "Discrete", "Dict")), names[0])
    is_image = kind == "Box" and space.dtype == np.uint8 and _image_axes(space.shape)
    return "image" if is_image else kind


def _image_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the axes of height, width and channels in an image; () if it is none."""
    if len(shape) == 3 and shape[2] not in (1, 3):
        return (1, 2, 0) if shape[0] in (1, 3) and min(shape[1:]) >= LEAST_IMAGE else ()
    is_image = len(shape) in (2, 3) and min(shape[:2]) >= LEAST_IMAGE
    return tuple(range(len(shape))) if is_image else ()


def _flatten(space: Any, prefix: str) -> list[tuple[str, Any]]:
    """Returns the names and values of a Dict space or of a dict, nested or not."""
    parts = getattr(space, "spaces", space)
    if not isinstance(parts, Mapping):
        return [(prefix, space)]
    start = f"{prefix}/" if prefix else ""
    return [item for key, part in parts.items() for item in _flatten(part, f"{start}{key}")]


def _codec(name: str, space: Any, image_size: int) -> tuple[Space, Callable]:
    """Returns our space of an observation, and the function that encodes its values."""
    kind, shape = _kind_of(space), space.shape
    if kind == "Discrete":
        one_hot, start = np.eye(int(space.n), dtype=np.float32), int(getattr(space, "start", 0))
        return one_hot_space(int(space.n)), lambda value: one_hot[int(value) - start].copy()
    if kind == "image":
        axes = _image_axes(shape)
        return image_space(image_size), lambda value: resize(value.transpose(axes), image_size)
    # An image of an unknown form is no vector: it would be huge, and in units of its own.
    sides = sorted(shape) if len(shape) == 3 else [0, 0]
    if sides[1] >= LEAST_IMAGE and (space.dtype == np.uint8 or sides[0] <= 4):
        raise UserError(
            f"observation {name!r} looks like images, {np.dtype(space.dtype)} {list(shape)}; "
            "expected uint8 [height, width, channels] or [channels, height, width] of 1 or 3 "
            "channels: wrap the environment, or set envs.state to false to leave it out"
        )
    low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (space.low, space.high))
    # Raw bytes, such as a console's memory, are no quantities in units of their own.
    if space.dtype == np.uint8 and len(shape) == 1 and np.all(low == 0) and np.all(high == 255):
        ours = Space(shape, np.dtype(np.float32), -0.5, 0.5)
        return ours, lambda value: value.astype(np.float32) / 255.0 - 0.5
    ours = Space(low.shape, np.dtype(np.float32), low, high)
    return ours, lambda value: value.astype(np.float32).reshape(-1)


def _action_space(space: Any) -> Space:
    """Returns one-hot [A] for a Discrete space, and a Box's own; UserError for other spaces."""
    if _kind_of(space) == "Discrete":
        return one_hot_space(int(space.n))
    if _kind_of(space) == "Box":
        return Space(space.shape, space.dtype, space.low, space.high)
    raise UserError(
        f"actions of the space {space} are not supported: expected a Box or a Discrete space"
    )


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
    """Calls the library's `make`; without render_mode if the environment takes none.

    Raises UserError if there can be no image without render_mode, although one is asked for.
    """
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
        if _has_image(env.observation_space) or _draws_by_mode(env):
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
