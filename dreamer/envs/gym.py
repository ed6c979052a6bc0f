"""Gymnasium environments, and those of old gym, which are recognised by what they return."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import enum
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from dreamer.envs import rendering
from dreamer.envs.gym_spaces import (
    CODED,
    Path,
    action_space,
    codec,
    flag,
    image_axes,
    kind_of,
    leaves,
    resize_remark,
    scalar,
    to_numpy,
    value_at,
)
from dreamer.envs.spec import SCALARS, Env, EnvSettings, image_space
from dreamer.envs.wrappers import FrameEnv, NormalizeActions, resize
from dreamer.errors import ContractError, NoImageError, UserError, suggest

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

    Raises UserError if the id is unknown, or Gymnasium or the environment's package is missing.
    """
    library = _import_library()
    if library.__name__ == "gymnasium":
        _register(env_id)
    try:
        env = _make(partial(library.make, **settings.keywords()), env_id, settings.image)
    except (library.error.Error, ImportError) as error:
        raise UserError(_why_not(env_id, error, library)) from error
    except TypeError as error:
        if settings.arguments and "unexpected keyword argument" in str(error):
            raise UserError(
                f"gym_{env_id} does not take envs.arguments {settings.arguments!r}: {error}"
            ) from error
        raise
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
        env: Has `observation_space` (Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple
            of them; other kinds only without `state`), `action_space` (one of the first four),
            `reset()` and `step()`.
        settings: How to make the environment. With `image`, the observation's images are resized,
            or an image is rendered if there is none; with `state`, the other observations are flat
            float32 vectors.

    Raises UserError if a space is of another kind, or no observation is left.
    """
    rendering.show_mujoco_warnings()
    adapted = GymEnv(env, settings)
    return adapted if adapted.act_space.discrete else NormalizeActions(adapted)


class GymEnv(FrameEnv):
    """See `adapt_gym`; actions are still in the environment's own range.

    Images (uint8 arrays with height and width of at least 16; the other axes are channels or
    stacked frames, and come last) become uint8 [image_size, image_size, channels], 3 channels if
    there was one. Vectors of bytes (uint8 [n], 0 to 255) are scaled to [-0.5, 0.5]. Other boxes,
    and those whose names match `envs.flatten`, become flat float32 vectors. Whole numbers become
    one-hot vectors. A single observation is named "image" or "observation". Nested names are joined
    by a slash. A vector named "image" is renamed to "image_vector". Texts are left out; without
    `state`, so are spaces of unknown kinds.

    An image is rendered if the observation has none. If the environment renders none either, the
    agent learns from its other observations; `info["notes"]` says so.
    """

    def __init__(self, env: Any, settings: EnvSettings):
        super().__init__(settings, settings.time_limit)
        # Gymnasium's vector environments have the first, Stable-Baselines3's the second.
        if hasattr(env, "single_observation_space") or hasattr(env, "step_async"):
            raise UserError(
                f"{env} is several environments in one: make a single environment; envs.num_envs "
                "says how many of them there are"
            )
        if hasattr(env, "possible_agents"):
            raise UserError(
                f"{env} has several agents, but here one acts: wrap it for a single agent"
            )
        self._env, self._size, self.obs_space = env, settings.image_size, {}
        self._close = getattr(env, "close", None)
        self._seeding = _seeding(env)
        self.info = {"seeding": self._seeding}
        self.act_space, self._native = action_space(env.action_space)
        if actions := _action_names(env, self.act_space.shape[0]):
            self.info["actions"] = " ".join(actions)
        self._encoders: dict[Path, tuple[str, Callable]] = {}
        parts = dict(leaves(env.observation_space))
        names = {path: "/".join(map(str, path)) or "observation" for path in parts}
        if settings.flatten and not any(re.fullmatch(settings.flatten, n) for n in names.values()):
            raise UserError(
                f"envs.flatten {settings.flatten!r} matches none of {', '.join(names.values())}"
            )
        images = {p for p, n in names.items() if image_axes(parts[p], n, settings.flatten)}
        for path, part in parts.items():
            self._add_observation(path, names[path], part, path in images, settings)
        self._rendered = settings.image and not images
        if self._rendered:
            self._check_rendering()
        own_limit = getattr(getattr(env, "spec", None), "max_episode_steps", None) or 0
        if limit := settings.time_limit or max(own_limit, 0):
            self.info["time_limit"] = str(limit)
        if not self.obs_space:
            raise UserError(
                f"no observation is left: envs.image is {str(settings.image).lower()} and "
                f"envs.state is {str(settings.state).lower()}, but the observation space is "
                f"{env.observation_space}"
            )

    def _add_observation(
        self, path: Path, name: str, space: Any, is_image: bool, settings: EnvSettings
    ) -> None:
        """Adds an observation to `obs_space`, unless the settings leave it out."""
        kind = kind_of(space)
        if kind == "text" or not (settings.state or kind in CODED):
            self.info["left_out"] = f"{self.info.get('left_out', '')} {name}".strip()
        elif settings.image if is_image else settings.state:
            if name in SCALARS or name in ("action", "discount"):
                raise UserError(
                    f"an observation is named {name!r}, a timestep's own key: rename it"
                )
            # Only an image may have the key "image".
            key = f"{name}_vector" if name == "image" and not is_image else name
            key = "image" if is_image and not path else key
            if key in self.obs_space:
                raise UserError(f"two observations would be named {key!r}: rename one of them")
            self.obs_space[key], encode, remark = codec(name, space, self._size, settings.flatten)
            self._encoders[path] = key, encode
            self._note(remark)

    def _note(self, text: str) -> None:
        """Adds a line to the notes that a run shows once."""
        notes = self.info.get("notes", "").splitlines()
        if text and text not in notes:
            self.info["notes"] = "\n".join([*notes, text])

    def _check_rendering(self) -> None:
        """Adds the rendered image to `obs_space`, or leaves it out where there is none.

        UserError if the image would be the only observation.
        """
        declared = getattr(self._env, "render_mode", None) == "rgb_array"
        try:
            if not _renders(self._env):
                raise NoImageError(
                    "the environment draws no image, because it has no render() of its own: add "
                    "one, or set envs.image to false and envs.state to true"
                )
            if not declared:  # some render all the same, which only trying tells
                self._env.reset()
                self._render()
        except NoImageError as error:
            if not self.obs_space:
                raise
            self._note(
                f"{error}; the agent learns without images, from {', '.join(self.obs_space)}"
            )
            self._rendered = False
        else:
            self.obs_space["image"] = image_space(self._size)

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
        pair = isinstance(result, tuple | list) and len(result) == 2
        with_info = pair and (result[1] is None or isinstance(result[1], Mapping))
        self._shown = result[0] if with_info else result

    def _decode(self, action: np.ndarray) -> Any:
        self.act_space.check(action, "action")
        return self._native(action)

    def _advance(self, action: Any) -> tuple[float, bool, bool]:
        # Some environments change the array, but a repeated action must stay the same.
        self._shown, reward, terminated, truncated = _unpack(self._env.step(copy.copy(action)))
        return scalar(reward, "reward"), terminated or truncated, terminated

    def _observe(self) -> dict[str, np.ndarray]:
        encoded = {
            key: encode(to_numpy(value_at(path, self._shown), key))
            for path, (key, encode) in self._encoders.items()
        }
        if self._rendered:
            frame = self._render()
            height, width = frame.shape[:2]
            self._note(resize_remark("image", height, width, self._size))
            encoded["image"] = resize(frame, self._size)
        return encoded

    def _render(self) -> np.ndarray:
        """Returns the environment's image without alpha: uint8 [height, width, 3 or 1] or 2-D.

        Raises NoImageError if it renders none.
        """
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
        if isinstance(frame, list | tuple) and frame:
            frame = frame[-1]  # render_mode rgb_array_list: the frames since the last call
        returned = type(frame).__name__
        if frame is not None and not isinstance(frame, str):
            image = to_numpy(frame)
            if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] in (3, 4):
                return image[:, :, :3]
            if image.dtype == np.uint8 and image.ndim in (2, 3) and image.shape[2:] in ((), (1,)):
                return image
            returned = f"{image.dtype} {list(image.shape)}"
        advice = (
            "make it with render_mode='rgb_array'"
            if getattr(self._env, "render_mode", None) != "rgb_array" and frame is None
            else "return such an array"
        )
        raise NoImageError(
            "the observation has no image and the environment renders none (render() returned "
            f"{returned}, expected uint8 [height, width, 3]): {advice}, or set envs.image to "
            "false and envs.state to true"
        )

    def _draw(self) -> Any:
        env = self._env
        if getattr(env, "render_mode", None) == "rgb_array" or not _draws_by_mode(env):
            return env.render()
        # A wrapper without the argument could not pass it on.
        return (env if _takes(env.render, "mode") else env.unwrapped).render(mode="rgb_array")

    def close(self) -> None:
        super().close()
        close, self._close = self._close, None  # once, because some refuse a second time
        if close is not None:
            close()


def _renders(env: Any) -> bool:
    """Whether the environment has a method `render` of its own, not only Gymnasium's empty one."""
    render = getattr(type(getattr(env, "unwrapped", env)), "render", None)
    inherited = getattr(render, "__module__", ""), getattr(render, "__qualname__", "")
    return hasattr(env, "render") and inherited not in (
        ("gymnasium.core", "Env.render"), ("gym.core", "Env.render")
    )  # fmt: skip


def _draws_by_mode(env: Any) -> bool:
    """Whether `render` takes the kind of image as an argument, as in gym before 0.26."""
    inner = getattr(env, "unwrapped", env)  # a wrapper's render may name no arguments
    return "mode" in inspect.signature(inner.render).parameters


def _takes(function: Callable[..., Any], name: str) -> bool:
    """Whether `function` takes the argument `name`, by name or as one of **keywords."""
    parameters = inspect.signature(function).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _action_names(env: Any, size: int) -> list[str]:
    """The names that an environment gives the elements of its actions; none if it gives none.

    Games have `get_action_meanings`, grid worlds an enumeration `actions`, and MuJoCo's models name
    actuators or the joints that these move.
    """
    names: list[Any] = []
    with contextlib.suppress(Exception):  # whatever users' environments have under these names
        inner = getattr(env, "unwrapped", env)
        listed = getattr(inner, "actions", None)
        if callable(meanings := getattr(inner, "get_action_meanings", None)):
            names = list(meanings())
        elif isinstance(listed, type) and issubclass(listed, enum.Enum):
            names = [member.name for member in listed]
        elif (model := getattr(inner, "model", None)) is not None:
            motors = [model.actuator(i) for i in range(model.nu)]
            names = [motor.name or model.joint(motor.trnid[0]).name for motor in motors]
    words = ["_".join(str(name).lower().split()) for name in names]
    return words if len(words) == size and all(words) else []


def _seeding(env: Any) -> str:
    """Returns how `env` takes a seed: "reset" (argument), "seed" (old gym's method) or "none"."""
    inner = getattr(env, "unwrapped", env)
    named = "seed" in inspect.signature(inner.reset).parameters
    if not named and callable(getattr(inner, "seed", None)):
        return "seed"
    # A wrapper whose reset() takes no arguments could not pass the seed on.
    return "reset" if _takes(inner.reset, "seed") and _takes(env.reset, "seed") else "none"


def _unpack(result: Any) -> tuple[Any, Any, bool, bool]:
    """Returns (obs, reward, terminated, truncated) of a step's 5-tuple or old gym's 4-tuple.

    An end that `info` calls a time limit is not terminal: by "TimeLimit.truncated", as old gym
    does, or by a "discount" of 1, as wrappers of dm_env's environments do.
    """
    if not isinstance(result, tuple | list) or len(result) not in (4, 5):
        got = f"{len(result)} values" if isinstance(result, tuple | list) else type(result).__name__
        raise UserError(
            f"step() returned {got}; expected (obs, reward, terminated, truncated, info), or old "
            "gym's (obs, reward, done, info)"
        )
    obs, reward, *flags, info = result
    ended = flag(flags[0], "terminated" if len(flags) == 2 else "done")
    truncated = flag(flags[1], "truncated") if len(flags) == 2 else False
    limit = ended and isinstance(info, Mapping) and _is_limit(info)
    return obs, reward, ended and not limit, truncated or limit


def _is_limit(info: Mapping[str, Any]) -> bool:
    with contextlib.suppress(ContractError):  # something else may have these names
        if flag(info.get("TimeLimit.truncated"), "info['TimeLimit.truncated']"):
            return True
        return "discount" in info and scalar(info["discount"], "info['discount']") == 1
    return False


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
    """Calls the library's `make`; without render_mode if the environment takes none."""
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
        return make(env_id, disable_env_checker=True)


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
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        advice = f"; try pip install {missing.partition('.')[0]}" if missing else ""
        return f"gym_{env_id} needs a package that is not installed: {error}{advice}"
    return f"gym_{env_id} cannot be made: {error}"
