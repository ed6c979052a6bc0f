"""A stand-in for the package deepmind_lab, which no package index has. For tests alone.

It has the part of the real interface (google-deepmind/lab at b1db91a) that the adapter uses. It
refuses whatever the real package refuses there, with the same error types and wordings. It raises
`UndefinedError` for calls that the real package leaves undefined, truncates silently or does not
check, and for settings that the stand-in does not have. Only the world is made up.
"""

import math
import random

import numpy as np

FOLDER = "contributed/dmlab30/"
#: Level -> (seconds of an episode, rewards after which it ends by itself; 0: it never does).
LEVELS = {
    "rooms_collect_good_objects_train": (60, 10), "explore_object_rewards_few": (90, 0),
    "psychlab_sequential_comparison": (300, 60), "explore_obstructed_goals_large": (120, 0),
    "explore_obstructed_goals_small": (90, 0), "explore_object_locations_small": (90, 0),
    "explore_goal_locations_large": (120, 0), "explore_goal_locations_small": (90, 0),
    "rooms_keys_doors_puzzle": (60, 1), "lasertag_one_opponent_small": (240, 0),
    "lasertag_three_opponents_small": (240, 0), "psychlab_visual_search": (150, 80),
    "rooms_watermaze": (120, 0),
}  # fmt: skip
ACTIONS = (
    ("LOOK_LEFT_RIGHT_PIXELS_PER_FRAME", -512, 512),
    ("LOOK_DOWN_UP_PIXELS_PER_FRAME", -512, 512),
    ("STRAFE_LEFT_RIGHT", -1, 1), ("MOVE_BACK_FORWARD", -1, 1), ("FIRE", 0, 1), ("JUMP", 0, 1),
    ("CROUCH", 0, 1),
)  # fmt: skip
OBSERVATIONS = ("RGB_INTERLEAVED", "VEL.TRANS", "VEL.ROT", "FRAMES_REMAINING_AT_60")
FRAMES_PER_SECOND = 60
TURN = math.radians(0.1056)  # of one look unit in one frame
PAUSE = 12  # frames between the last reward and the end


class UndefinedError(Exception):
    """The real simulator would continue with freed memory, wrong numbers or a wrong count."""


def _expect(value, kind, position):
    if not isinstance(value, kind):
        given = type(value).__name__
        raise TypeError(f"argument {position} must be {kind.__name__}, not {given}")


def _read(config):
    """Returns width and height of the config's texts."""
    size = {"width": 320, "height": 240}
    for key, text in config.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError("bad argument type for built-in operation")
        if key not in (*size, "gpuDeviceIndex", "logLevel"):
            raise UndefinedError(f"the stand-in has no setting {key!r}")
        if key == "logLevel":
            if text not in ("NEVER", "ERROR", "WARN", "INFO"):
                raise _failure(f'Invalid setting: "{key}" = "{text}"')
            continue
        problem = "" if text.isdigit() else f"Invalid int setting '{key}' = '{text}'"
        if not problem and key in size:
            size[key] = int(text)
            if size[key] < 4 or size[key] % 4:
                problem = f"'{key}' must be a positive multiple of 4. Actual {size[key]}"
        if problem:
            raise RuntimeError(f"Failed to apply setting '{key} = {text}' - \"{problem}\"")
    return size["width"], size["height"]


def _failure(reason):
    return RuntimeError(f'Failed to init environment - "{reason}"')


class Lab:
    """One simulator. Its states: built, running, ended, closed."""

    def __init__(self, level, observations, config=None, renderer="software"):
        config = {} if config is None else config
        for position, (value, kind) in enumerate(
            [(level, str), (observations, list), (config, dict), (renderer, str)], 1
        ):
            _expect(value, kind, position)
        if renderer not in ("software", "hardware"):
            raise RuntimeError(
                f'Failed to set renderer must be "hardware" or "software" actual "{renderer}"!'
            )
        print("stand-in: engine loaded")  # the engine prints to stdout as well
        size = _read(config)
        name = level.removeprefix(FOLDER)
        if not level.startswith(FOLDER) or name not in LEVELS:
            raise _failure(f"Level not found: Failed to open file '{level}.lua'")
        for key in observations:
            if key not in OBSERVATIONS:
                raise ValueError(f"Unknown observation '{key}'.")
        self._names = list(observations)
        self._world = World(name, *size)
        self._state, self._steps, self._episode = "built", 0, 0

    def reset(self, episode=-1, seed=None):
        if self._state == "closed":
            raise UndefinedError("reset() after close() reads freed memory")
        if seed is not None and type(seed) is not int:
            raise ValueError(f"'seed' must be int or None, was '{type(seed).__name__}'.")
        if seed is not None and not 0 <= seed < 2**31:
            raise UndefinedError(f"seed {seed} would silently become another one")
        number = self._episode if episode < 0 else episode
        self._world.start(random.randrange(2**31) if seed is None else seed, number)
        self._episode, self._steps, self._state = number + 1, 0, "running"
        return True

    def step(self, action, num_steps=1):
        _expect(action, np.ndarray, 1)
        _expect(num_steps, int, 2)
        if self._state != "running":
            raise RuntimeError("Environment in wrong status to advance.")
        if action.shape != (len(ACTIONS),):
            raise ValueError(f"action must have shape ({len(ACTIONS)})")
        if action.dtype.kind != "i" or action.dtype.itemsize != np.dtype(np.intc).itemsize:
            raise ValueError("action must have dtype np.intc")
        if not action.dtype.isnative or not action.flags.c_contiguous:
            raise UndefinedError("the action's bytes would be read as other numbers")
        for value, (name, low, high) in zip(action.tolist(), ACTIONS, strict=True):
            if not low <= value <= high:
                raise UndefinedError(f"{name} is {value}, out of its bounds")
        if num_steps <= 0:
            raise UndefinedError(f"num_steps is {num_steps}, must be above 0")
        reward, running = self._world.advance(action.tolist(), num_steps)
        self._steps += num_steps
        self._state = "running" if running else "ended"
        return float(reward)

    def observations(self):
        if self._state != "running":
            raise RuntimeError("Environment in wrong status for call to observations()")
        return {name: self._world.observe(name) for name in self._names}

    def action_spec(self):
        return [{"min": low, "max": high, "name": name} for name, low, high in ACTIONS]

    def is_running(self):
        return self._state == "running"

    def num_steps(self):
        return self._steps

    def close(self):
        was_open, self._state = self._state != "closed", "closed"
        return was_open


class World:
    """A walk on a plane, with a reward each time it has gone far enough.

    Everything follows from (level, seed, number of the episode, actions), one frame at a time, so
    that holding an action for n frames is the same as giving it n times.
    """

    def __init__(self, level, width, height):
        seconds, self._pickups = LEVELS[level]
        self._level, self._width, self._height = level, width, height
        self._limit = seconds * FRAMES_PER_SECOND

    def start(self, seed, episode):
        self._random = np.random.default_rng([0, seed, episode, len(self._level)])
        self._place, self._angle = self._random.uniform(0, 256, 2), self._random.uniform(0, 6.28)
        self._color = self._random.integers(40, 256, 3)
        self._velocity, self._turn = np.zeros(3), np.zeros(3)
        self._frame, self._gone, self._found, self._ends = 0, 0.0, 0, None
        self._next = self._random.uniform(20, 40)

    def advance(self, action, frames):
        """Returns (sum of the rewards, whether the episode continues)."""
        reward = 0
        for _ in range(frames):
            reward += self._tick(action)
            if self._frame >= self._limit or self._frame == self._ends:
                return reward, False
        return reward, True

    def _tick(self, action):
        look, _, strafe, move, fire, *_ = action
        self._frame += 1
        self._turn = np.array([0.0, look * TURN, 0.0])
        self._angle += look * TURN
        ahead = np.array([math.cos(self._angle), math.sin(self._angle)])
        self._velocity = np.array([*(move * ahead + strafe * ahead[::-1]), 0.0])
        self._place = (self._place + self._velocity[:2]) % 256
        self._gone += max(move, fire)
        if self._gone < self._next or self._ends is not None:
            return 0
        self._next = self._gone + self._random.uniform(20, 40)
        self._found += 1
        if self._found == self._pickups:
            self._ends = self._frame + PAUSE
        return int(self._random.choice([1, 1, -1, 10]))

    def observe(self, name):
        """Returns a new array, as the real simulator does."""
        if name == "RGB_INTERLEAVED":
            return self._draw()
        left = [float(self._limit - self._frame)]
        return np.array({"VEL.TRANS": self._velocity, "VEL.ROT": self._turn}.get(name, left))

    def _draw(self):
        """Draws [height, width, 3] uint8: a floor in the episode's color, striped by the place."""
        rows, columns = np.mgrid[: self._height, : self._width]
        turned = columns + 40 * self._angle
        stripes = (turned + self._place[0] + rows * (1 + self._place[1] / 64)).astype(int) % 32 < 16
        pixels = np.where(stripes[..., None], self._color, 30).astype(np.uint8)
        pixels[: self._height // 2, :, 2] = 200
        return pixels
