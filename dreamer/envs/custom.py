"""Environments that a function of the user's own returns."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dreamer.envs.gym import adapt_gym
from dreamer.envs.spec import Env
from dreamer.envs.wrappers import ActionRepeat, NormalizeActions, TimeLimit
from dreamer.errors import UserError, suggest


def make_custom(task: str, *, action_repeat: int, time_limit: int, **settings: Any) -> Env:
    """Returns the environment that `module:function` or `path/to/file.py:function` returns.

    The function takes no arguments. What it returns is a Gymnasium or old gym environment, which
    `adapt_gym` takes with the settings, or one of our `Env`, which shows what it shows.

    Raises:
        UserError: no such file, module or function, or it returned something else.
    """
    env = _find(task)()
    if hasattr(env, "observation_space") and hasattr(env, "action_space"):
        return adapt_gym(env, action_repeat=action_repeat, time_limit=time_limit, **settings)
    if not isinstance(env, Env):
        raise UserError(
            f"{task} returned a {type(env).__name__}; expected a Gymnasium environment or an "
            "object with the attributes and methods of dreamer.envs.spec.Env"
        )
    if action_repeat > 1 and env.action_repeat not in (1, action_repeat):
        raise UserError(
            f"{task} holds an action for {env.action_repeat} frames itself: set "
            f"envs.action_repeat to {env.action_repeat}, not {action_repeat}"
        )
    if not env.act_space.discrete:
        env = NormalizeActions(env)
    if env.action_repeat < action_repeat:
        env = ActionRepeat(env, action_repeat)
    return TimeLimit(env, time_limit) if time_limit else env


def _find(task: str) -> Callable[[], Any]:
    place, _, name = task.rpartition(":")
    module = _load_file(place) if place.endswith(".py") else _load_module(place)
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value)]
        raise UserError(f"{place} has no function {name!r}{suggest(name, known)}")
    return function


def _load_file(place: str) -> Any:
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        raise UserError(f"no file {place} (from {Path.cwd()}), expected one that has the function")
    name = f"dreamer_env_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{place} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as import does, for dataclasses and the like
    # Modules beside the file are importable, as they are when the file itself is run.
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    return module


def _load_module(place: str) -> Any:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        # A module missing inside the user's own one is an error of that module, to be shown.
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise
        raise UserError(
            f"no module {place!r}: expected module:function with an importable module, or "
            "path/to/file.py:function"
        ) from error
