"""A stand-in for the package deepmind_lab, which no package index has. For tests alone.

It has the real one's interface (google-deepmind/lab at b1db91a) and refuses whatever that refuses,
with its error types and wordings. What the real one leaves undefined, cuts silently or does not
check raises `UndefinedError` here. Only the world is made up: see `world.py`.
"""

from __future__ import annotations

import operator
import os
import random
import shutil
import tempfile
import threading

import numpy as np

from .settings import Settings, check_observations, find_level
from .world import EngineError, World

READABLE, WRITABLE, READ_WRITABLE, LISTABLE = 1, 2, 3, 4
_ARGUMENTS = ("level", "observations", "config", "renderer", "level_cache", "temp_folder")
_INT_MAX, _LONG_MAX = 2**31 - 1, 2**63 - 1
_runfiles = os.path.dirname(os.path.abspath(__file__))


class UndefinedError(Exception):
    """The real simulator would go on here, with freed memory, wrong numbers or a wrong count."""


def version():
    return "1.0"


def runfiles_path():
    return _runfiles


def set_runfiles_path(path):
    global _runfiles
    _expect(path, str, 1)
    if len(path.encode()) >= 4096:
        raise RuntimeError("Runfiles directory name too long!")
    _runfiles = path
    return True


def _expect(value, kind, position):
    if not isinstance(value, kind):
        raise TypeError(
            f"argument {position} must be {kind.__name__}, not {type(value).__name__}"
        )
    if kind is str and "\0" in value:
        raise ValueError("embedded null character")


def _arguments(args, kwargs):
    """The constructor's arguments by name, in the order in which they are checked."""
    if len(args) + len(kwargs) > len(_ARGUMENTS):
        raise TypeError(f"function takes at most 6 arguments ({len(args) + len(kwargs)} given)")
    given = dict(zip(_ARGUMENTS, args, strict=False))
    for name, value in kwargs.items():
        if name not in _ARGUMENTS:
            raise TypeError(f"'{name}' is an invalid keyword argument for this function")
        if name in given:
            raise TypeError(f"argument for function given by name ('{name}') and position")
        given[name] = value
    for position, name in enumerate(_ARGUMENTS[:2], 1):
        if name not in given:
            raise TypeError(f"function missing required argument '{name}' (pos {position})")
    kinds = {"level": str, "observations": list, "config": dict, "renderer": str,
             "temp_folder": str}  # fmt: skip
    for position, name in enumerate(_ARGUMENTS, 1):
        if name in given and name in kinds:
            _expect(given[name], kinds[name], position)
    return given


class Lab:
    """One simulator. States: built, running, ended, failed, closed."""

    __slots__ = ("_cache", "_episode", "_folder", "_keep", "_names", "_renderer", "_settings",
                 "_state", "_steps", "_thread", "_world")  # fmt: skip

    def __init_subclass__(cls, **kwargs):
        raise TypeError("type 'deepmind_lab.Lab' is not an acceptable base type")

    def __reduce_ex__(self, protocol):
        raise TypeError("cannot pickle 'deepmind_lab.Lab' object")

    def __init__(self, *args, **kwargs):
        self._state, self._folder = "closed", None
        given = _arguments(args, kwargs)
        renderer = given.get("renderer", "software") or "software"
        if renderer not in ("software", "hardware"):
            raise RuntimeError(
                f'Failed to set renderer must be "hardware" or "software" actual "{renderer}"!'
            )
        print("stand-in: engine loaded")  # the engine prints to stdout as well
        if not os.path.isdir(_runfiles):
            raise RuntimeError("Failed to connect RL API")
        self._settings = Settings(given.get("config", {}))
        level = find_level(given["level"], self._settings)
        self._names = list(given["observations"])
        check_observations(self._names, level, self._settings)
        self._cache = given.get("level_cache")
        self._world = World(level, self._settings)
        self._renderer, self._thread = renderer, threading.get_ident()
        self._keep = "temp_folder" in given
        place = os.environ.get("TEST_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
        self._folder = given.get("temp_folder") or tempfile.mkdtemp("", "dmlab_temp_folder_", place)
        self._state, self._steps, self._episode = "built", 0, 0

    def reset(self, episode=-1, seed=None):
        self._refuse_closed("reset")
        self._check_thread()
        episode = operator.index(episode)
        if not -_INT_MAX - 1 <= episode <= _INT_MAX:
            raise OverflowError("signed integer is greater than maximum")
        if seed is not None and not isinstance(seed, int):
            kind = type(seed)
            name = kind.__name__ if kind.__module__ == "builtins" else (
                f"{kind.__module__}.{kind.__name__}"
            )  # fmt: skip
            raise ValueError(f"'seed' must be int or None, was '{name}'.")
        if seed is not None and abs(seed) > _LONG_MAX:
            raise OverflowError("Python int too large to convert to C long")
        if seed is not None and not 0 <= seed <= _INT_MAX:
            raise UndefinedError(f"seed {seed} would silently become another one")
        number = self._episode if episode < 0 else episode
        self._fetch_map()
        self._world.start(random.randrange(2**31) if seed is None else int(seed), number)
        self._episode, self._steps, self._state = number + 1, 0, "running"
        return True

    def _fetch_map(self):
        if self._cache is not None and self._world.level.builds_maps:
            path = os.path.join(self._folder, "map.pk3")
            if not self._cache.fetch("map", path):
                self._cache.write("map", path)

    def step(self, action, num_steps=1):
        _expect_array(action)
        frames = operator.index(num_steps)
        if not -(2**31) <= frames < 2**31:
            raise OverflowError("num_steps does not fit into a C int")
        if self._state != "running":
            raise RuntimeError("Environment in wrong status to advance.")
        self._check_thread()
        spec = self._settings.action_spec()
        if action.shape != (len(spec),):
            raise ValueError(f"action must have shape ({len(spec)})")
        if action.dtype.kind != "i" or action.dtype.itemsize != np.dtype(np.intc).itemsize:
            raise ValueError("action must have dtype np.intc")
        if not action.dtype.isnative or not action.flags.c_contiguous:
            raise UndefinedError("the action's bytes would be read as other numbers")
        for value, entry in zip(action.tolist(), spec, strict=True):
            if not entry["min"] <= value <= entry["max"]:
                raise UndefinedError(f"{entry['name']} is {value}, out of its bounds")
        if frames <= 0:
            raise UndefinedError(f"num_steps is {frames}, must be above 0")
        try:
            reward, running = self._world.advance(action.tolist(), frames)
        except EngineError as error:
            self._state = "failed"
            raise ValueError(f'Failed to advance environment "{error}"') from None
        self._steps += frames
        self._state = "running" if running else "ended"
        return float(reward)

    def observations(self):
        if self._state != "running":
            raise RuntimeError("Environment in wrong status for call to observations()")
        self._check_thread()
        shown = self._world.observations()
        return {name: shown[name]() for name in self._names}

    def events(self):
        if self._state not in ("running", "ended"):
            raise RuntimeError("Environment in wrong status for call to events()")
        return []

    def observation_spec(self):
        self._refuse_closed("observation_spec")
        return self._world.level.observation_spec(self._settings)

    def action_spec(self):
        self._refuse_closed("action_spec")
        return self._settings.action_spec()

    def is_running(self):
        return self._state == "running"

    def num_steps(self):
        return self._steps

    def read_property(self, key):
        self._refuse_closed("read_property")
        _expect(key, str, 1)
        found = self._world.properties()
        if key not in found:
            raise KeyError(f"'{key}' not found.")
        return found[key]

    def write_property(self, key, value):
        self._refuse_closed("write_property")
        _expect(key, str, 1)
        _expect(value, str, 2)
        if key not in self._world.properties():
            raise KeyError(f"'{key}' not found.")
        raise TypeError(f"'{key}' not writable.")

    def properties(self, key=""):
        self._refuse_closed("properties")
        _expect(key, str, 1)
        found = {name: READABLE for name in self._world.properties() if name.startswith(key)}
        if key and not found:
            raise KeyError(f"'{key}' not found.")
        return found

    def close(self):
        was_open = self._state != "closed"
        if was_open and not self._keep:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._state = "closed"
        return was_open

    def __del__(self):
        if self._state != "closed":
            self.close()

    def _refuse_closed(self, call):
        if self._state == "closed":
            raise UndefinedError(f"{call}() after close() reads freed memory")

    def _check_thread(self):
        if self._renderer == "hardware" and threading.get_ident() != self._thread:
            raise UndefinedError("only the thread that built a hardware renderer may use it")


def _expect_array(action):
    if not isinstance(action, np.ndarray):
        raise TypeError(f"argument 1 must be numpy.ndarray, not {type(action).__name__}")
