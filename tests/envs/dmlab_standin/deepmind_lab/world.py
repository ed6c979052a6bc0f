"""The stand-in's world: a walk on a plane, with a reward each time it has gone far enough.

Everything follows from (level, mixerSeed, seed, number of the episode, actions), a frame at a
time, so that holding an action for n frames is the same as giving it n times.
"""

from __future__ import annotations

import math
import os
import sys

import numpy as np

TURN = math.radians(0.1056)  # of a look unit in a frame
PAUSE = 12  # frames between the last pickup and the end, 0.2 s


class EngineError(Exception):
    """The engine cannot advance."""


class World:
    """A level's episodes; `observations` gives functions, so that only what is asked is drawn.

    The engine fails once, at the next step, when the file that the environment variable
    DMLAB_STANDIN_FAILURE names is there, which it removes.
    """

    def __init__(self, level, settings):
        self.level, self._settings = level, settings
        length = settings.lua.get("episodeLengthSeconds") if level.takes_settings else None
        self.seconds = float(length) if length else level.seconds

    def start(self, seed, episode):
        mixed = [self._settings.mixer_seed, seed, episode, len(self.level.name)]
        self._random = np.random.default_rng(mixed)
        self._place, self._angle = self._random.uniform(0, 256, 2), self._random.uniform(0, 6.28)
        self._colour = self._random.integers(40, 256, 3)
        self._velocity, self._turn = np.zeros(3), np.zeros(3)
        self._frame, self._gone, self._found, self._ends = 0, 0.0, 0, None
        self._next = self._random.uniform(20, 40)

    @property
    def limit(self):
        return round(self.seconds * self._settings.fps)

    def advance(self, action, frames):
        """(sum of the scores, whether the episode goes on).

        Raises:
            EngineError: the switch is set.
        """
        switch = os.environ.get("DMLAB_STANDIN_FAILURE", "")
        if os.path.exists(switch):
            os.remove(switch)
            raise EngineError("the engine was told to fail")
        score = 0
        for _ in range(frames):
            score += self._tick(action)
            if self._frame >= self.limit or self._frame == self._ends:
                return score, False
        return score, True

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
        if self._found == self.level.pickups:
            self._ends = self._frame + PAUSE
        return int(self._random.choice([1, 1, -1, 10]))

    def properties(self):
        found = {"engine.fps": str(self._settings.fps)}
        if self.level.takes_settings:
            found["params.episodeLengthSeconds"] = f"{self.seconds:g}"
        return found

    def observations(self):
        def image(channels, planar=False):
            pixels = self._draw()[..., channels]
            return np.array(pixels.transpose(2, 0, 1) if planar else pixels, order="C")

        def twin(name, channels):
            print(f"{name} is deprecated", file=sys.stderr)
            return image(channels)

        rgb, rgbd, bgr = [0, 1, 2], [0, 1, 2, 3], [2, 1, 0]
        remaining = (self.limit - self._frame) * 60 / self._settings.fps
        return {
            "RGB_INTERLEAVED": lambda: image(rgb), "RGBD_INTERLEAVED": lambda: image(rgbd),
            "RGB": lambda: image(rgb, True), "RGBD": lambda: image(rgbd, True),
            "BGR_INTERLEAVED": lambda: image(bgr), "BGRD_INTERLEAVED": lambda: image([*bgr, 3]),
            "MAP_FRAME_NUMBER": lambda: np.array([float(self._frame)]),
            "RGB_INTERLACED": lambda: twin("RGB_INTERLACED", rgb),
            "RGBD_INTERLACED": lambda: twin("RGBD_INTERLACED", rgbd),
            "VEL.TRANS": self._velocity.copy, "VEL.ROT": self._turn.copy, "INSTR": lambda: "",
            "TEAM.SCORE": lambda: np.zeros(2),
            "FRAMES_REMAINING_AT_60": lambda: np.array([float(remaining)]),
        }  # fmt: skip

    def _draw(self):
        """[height, width, 4] uint8: floor in the episode's colour, striped by place and angle."""
        height, width = self._settings.height, self._settings.width
        rows, columns = np.mgrid[:height, :width]
        turned = columns + 40 * self._angle
        stripes = (turned + self._place[0] + rows * (1 + self._place[1] / 64)).astype(int) % 32 < 16
        pixels = np.zeros((height, width, 4), np.uint8)
        pixels[..., :3] = np.where(stripes[..., None], self._colour, 30)
        pixels[: height // 2, :, 2] = 200
        pixels[..., 3] = np.linspace(0, 255, height)[:, None]
        return pixels
