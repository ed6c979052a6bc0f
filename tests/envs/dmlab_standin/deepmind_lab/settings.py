"""The stand-in's levels, settings and specs: what the simulator takes, and its errors."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

FOLDER = "contributed/dmlab30/"
_BOOLEANS = {
    "use_pbos", "minimalUI", "reducedUI", "nativeApp", "logToStdErr", "server", "client",
    "hasAltCameras", "localLevelCache", "globalLevelCache", "gadgetSelect", "gadgetSwitch",
}  # fmt: skip
_INTEGERS = {"gpuDeviceIndex", "maxAltCameraWidth", "maxAltCameraHeight", "port", "serverPort"}
_TEXTS = {"levelDirectory", "levelName", "appendCommand", "playerName", "record", "demo",
          "demofiles", "video"}  # fmt: skip
_LUA = {
    "logLevel", "allowHoldOutLevels", "episodeLengthSeconds", "randomSeed", "datasetPath",
    "invocationMode", "players", "playerId", "levelGenerator", "enableCameraMovement",
}  # fmt: skip
_STRTOL = re.compile(r"\s*[+-]?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_ACTIONS = (
    ("LOOK_LEFT_RIGHT_PIXELS_PER_FRAME", -512, 512),
    ("LOOK_DOWN_UP_PIXELS_PER_FRAME", -512, 512),
    ("STRAFE_LEFT_RIGHT", -1, 1), ("MOVE_BACK_FORWARD", -1, 1), ("FIRE", 0, 1), ("JUMP", 0, 1),
    ("CROUCH", 0, 1),
)  # fmt: skip


@dataclass(frozen=True)
class Level:
    """`pickups`: rewards after which an episode ends by itself; 0: it never does."""

    name: str
    seconds: int
    pickups: int = 0
    builds_maps: bool = False
    takes_settings: bool = True

    def observation_spec(self, settings):
        height, width = settings.height, settings.width
        pixels = {
            "RGB_INTERLEAVED": (height, width, 3), "RGBD_INTERLEAVED": (height, width, 4),
            "RGB": (3, height, width), "RGBD": (4, height, width),
            "BGR_INTERLEAVED": (height, width, 3), "BGRD_INTERLEAVED": (height, width, 4),
        }  # fmt: skip
        twins = {"RGB_INTERLACED": (height, width, 3), "RGBD_INTERLACED": (height, width, 4)}
        own = {"VEL.TRANS": (3,), "VEL.ROT": (3,), "INSTR": (), "TEAM.SCORE": (2,),
               "FRAMES_REMAINING_AT_60": (1,)}  # fmt: skip
        table = [
            *((name, shape, np.uint8) for name, shape in pixels.items()),
            ("MAP_FRAME_NUMBER", (1,), np.float64),
            *((name, shape, np.uint8) for name, shape in twins.items()),
            *((name, shape, np.float64 if shape else str) for name, shape in own.items()),
        ]
        return [{"name": n, "shape": s, "dtype": d} for n, s, d in table]


LEVELS = {level.name: level for level in (
    Level("rooms_collect_good_objects_train", 60, pickups=10, takes_settings=False),
    Level("rooms_collect_good_objects_test", 60, pickups=10, takes_settings=False),
    Level("explore_object_rewards_few", 90, builds_maps=True),
    Level("psychlab_sequential_comparison", 300, pickups=60),
    Level("explore_obstructed_goals_large", 120, builds_maps=True),
    Level("explore_obstructed_goals_small", 90, builds_maps=True),
    Level("explore_object_locations_small", 90, builds_maps=True),
    Level("explore_goal_locations_large", 120, builds_maps=True),
    Level("explore_goal_locations_small", 90, builds_maps=True),
    Level("rooms_keys_doors_puzzle", 60, pickups=1, builds_maps=True, takes_settings=False),
    Level("lasertag_one_opponent_small", 240, builds_maps=True),
    Level("lasertag_three_opponents_small", 240, builds_maps=True),
    Level("psychlab_visual_search", 150, pickups=80),
    Level("rooms_watermaze", 120),
)}  # fmt: skip


class Settings:
    """What a config dict of texts says, applied in its order."""

    def __init__(self, config):
        self.width, self.height, self.fps, self.mixer_seed = 320, 240, 60, 0
        self.flags, self.lua, self.texts = set(), {}, {}
        for key, value in config.items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise TypeError("bad argument type for built-in operation")
            problem = self._apply(key, value)
            if problem:
                raise RuntimeError(f"Failed to apply setting '{key} = {value}' - \"{problem}\"")

    def _apply(self, key, value):
        if key in ("width", "height"):
            number = _integer(value)
            if number is None:
                return f"Invalid int setting '{key}' = '{value}'"
            if number < 4 or number % 4:
                return f"'{key}' must be a positive multiple of 4. Actual {number}"
            setattr(self, key, number)
        elif key == "fps":
            number = _float(value)
            if number is None:
                return f"Invalid float setting 'fps' = '{value}'"
            self.fps = int(number) if int(number) > 0 else self.fps
        elif key == "mixerSeed":
            number = _integer(value)
            if number is None or not 0 <= number < 2**32:
                return f"Invalid int setting 'mixerSeed' = '{value}'"
            self.mixer_seed = number
        elif key in _INTEGERS and _integer(value) is None:
            return f"Invalid int setting '{key}' = '{value}'"
        elif key in _BOOLEANS:
            if value not in ("true", "false"):
                return f"'{key}' must be 'true' or 'false'. Actual {value}"
            (self.flags.add if value == "true" else self.flags.discard)(key)
        elif key == "vmMode" and value not in ("interpreted", "compiled", "native"):
            return f"'vmMode' is '{value}'"
        elif key in _TEXTS:
            self.texts[key] = value
        elif key not in {*_INTEGERS, "vmMode"}:
            self.lua[key] = value
        return None

    def action_spec(self):
        more = [("SELECT_GADGET", 0, 10)] if "gadgetSelect" in self.flags else []
        more += [("SWITCH_GADGET", -1, 1)] if "gadgetSwitch" in self.flags else []
        return [{"min": low, "max": high, "name": name} for name, low, high in (*_ACTIONS, *more)]


def _integer(text):
    """As C's strtol with base 0, which must take the whole text."""
    if not _STRTOL.fullmatch(text):
        return None
    digits = text.strip().lstrip("+-")
    base = 16 if digits[:2].lower() == "0x" else 8 if digits.startswith("0") else 10
    return int(digits, base) * (-1 if text.strip().startswith("-") else 1)


def _float(text):
    """A finite number, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def find_level(level, settings):
    """The level, its script loaded with the settings that the engine does not know."""
    name = settings.texts.get("levelName", level)
    directory = settings.texts.get("levelDirectory")
    path = f"{directory}/{name}" if directory else name
    path = path if path.endswith(".lua") else f"{path}.lua"
    found = LEVELS.get(path.removeprefix(FOLDER).removesuffix(".lua"))
    if not path.startswith(FOLDER) or found is None:
        raise _failure(f"Level not found: Failed to open file '{path}'")
    if found.name.endswith("_test") and settings.lua.get("allowHoldOutLevels") != "true":
        raise _failure("hold-out levels are not allowed")
    if not found.takes_settings:
        # One ignores what it does not know, the other fails with it later: both are refused.
        known = _LUA - ({"enableCameraMovement"} if "keys_doors" in found.name else set())
        unknown = set(settings.lua) - known
        if unknown:
            raise _failure(f"Invalid setting: {sorted(unknown)}, which this level would not report")
        return found
    for key, value in settings.lua.items():
        if key not in _LUA or (key == "logLevel" and not _is_log_level(value)):
            raise _failure(f'Invalid setting: "{key}" = "{value}"')
    return found


def _is_log_level(value):
    return value.upper() in ("NEVER", "ERROR", "WARN", "INFO") or value.isdigit()


def _failure(reason):
    return RuntimeError(f'Failed to init environment - "{reason}"')


def check_observations(names, level, settings):
    known = {entry["name"] for entry in level.observation_spec(settings)}
    for name in names:
        if not isinstance(name, str):
            raise TypeError("bad argument type for built-in operation")
        if name not in known:
            raise ValueError(f"Unknown observation '{name}'.")
