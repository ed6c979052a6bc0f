"""Environments by their ids, from Gymnasium's registry or old gym's."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from dreamer.envs.gym import adapt_gym, draws_by_mode
from dreamer.envs.gym_spaces import has_image
from dreamer.envs.spec import Env
from dreamer.errors import UserError, suggest

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
