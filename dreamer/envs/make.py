"""Environments by task name. Nothing here imports TensorFlow, and nothing may.

Suites are listed in `dreamer.tasks`, where a program may also register its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dreamer.envs.dm_env import GymOfDmEnv, is_dm_env
from dreamer.envs.gym import adapt_gym
from dreamer.envs.spec import Env, EnvSettings
from dreamer.envs.wrappers import NormalizeActions, Repeat
from dreamer.errors import UserError, suggest
from dreamer.tasks import find_suite, split_tasks


def make_env(task: str, **settings: Any) -> Env:
    """Makes an environment in this process, which a debugger can enter.

    An environment that renders must not share its process with TensorFlow: `dreamer.make_env`
    gives it a process of its own, as `dreamer.envs.processes.pool.EnvPool` does for several.

    Args:
        task: `dmc_<domain>_<task>`, `atari_<game>`, `dmlab_<level>`, `gym_<EnvId>`,
            `module:function` or `path/to/file.py:function`.
        **settings: The fields of `EnvSettings`.

    Raises:
        UserError: The task does not exist, a package is missing, or a setting is refused.
    """
    if len(split_tasks(task)) > 1:
        raise UserError(f"{task} is several tasks, but an environment has one: use an EnvPool")
    suite, name = find_suite(task)
    suite.check(task, checked := EnvSettings(**settings))
    return find_function(suite.maker)(name, checked)


def make_custom(task: str, settings: EnvSettings) -> Env:
    """Makes the environment that `module:function` or `path/to/file.py:function` returns.

    The function gets the settings' `arguments`, and those of the arguments `index`, `seed`,
    `training` and `render_mode` that it names: the environment's number among those for training
    or those for evaluation, a seed of its own, which of the two it is for, and with images
    "rgb_array". It returns an environment of Gymnasium, old gym or dm_env, which `adapt_gym` adapts
    with all settings; or one of our `Env`, whose observations stay as they are.

    Raises UserError if the function does not exist, takes other arguments, or returns something
    else.
    """
    function = find_function(task)
    env = function(**_arguments(task, function, settings))
    if is_dm_env(env):
        return adapt_gym(GymOfDmEnv(env, settings), settings)
    if hasattr(env, "observation_space") and hasattr(env, "action_space"):
        return adapt_gym(env, settings)
    if not isinstance(env, Env):
        raise UserError(
            f"{task} returned a {type(env).__name__}; expected a Gymnasium or dm_env environment "
            "or an object with the attributes and methods of dreamer.envs.spec.Env"
        )
    repeat = settings.action_repeat
    if repeat > 1 and env.action_repeat not in (1, repeat):
        raise UserError(
            f"{task} holds an action for {env.action_repeat} frames itself: set "
            f"envs.action_repeat to {env.action_repeat}, not {repeat}"
        )
    if not env.act_space.discrete:
        env = NormalizeActions(env)
    repeats = max(1, repeat // env.action_repeat)
    return Repeat(env, repeats, settings.time_limit) if repeats > 1 or settings.time_limit else env


def _arguments(place: str, function: Callable[..., Any], settings: EnvSettings) -> dict[str, Any]:
    """Returns the arguments that are given, and those that a user's function names of ours."""
    entropy = [settings.seed, settings.index, settings.training]
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
    known: dict[str, Any] = {"index": settings.index, "seed": seed, "training": settings.training}
    modes = getattr(function, "metadata", {}).get("render_modes", ["rgb_array"])  # of a class
    if settings.image and "rgb_array" in modes:
        known["render_mode"] = "rgb_array"
    given = settings.keywords()
    try:
        signature = inspect.signature(function)
    except ValueError:  # built into Python
        return given
    named = {name: value for name, value in known.items() if name in signature.parameters}
    try:
        signature.bind(**(arguments := {**named, **given}))
    except TypeError as error:
        refused = f"does not take envs.arguments {settings.arguments!r}"
        raise UserError(
            f"{place} {refused if given else 'needs arguments'} ({error}): give those that it "
            "needs, by name, as in --envs.arguments '{\"size\": 5}'"
        ) from error
    return arguments


def find_function(place: str) -> Callable[..., Any]:
    """Imports `module:function` or `path/to/file.py:function`; UserError if it does not exist."""
    source, _, name = place.rpartition(":")
    module = _load_file(source) if source.endswith(".py") else _load_module(source)
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value)]
        raise UserError(f"{source} has no function {name!r}{suggest(name, known)}")
    return function


def _load_file(place: str) -> ModuleType:
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        raise UserError(f"no file {place} (from {Path.cwd()}), expected one that has the function")
    name = f"dreamer_env_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as an import does; dataclasses look their module up there
    # Modules beside the file can be imported, as when the file itself is run.
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    return module


def _load_module(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        # If the user's own module misses another module, its traceback must be shown.
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise
        raise UserError(
            f"no module {place!r}: expected module:function with an importable module, or "
            "path/to/file.py:function"
        ) from error
