"""DeepMind Lab (arXiv 1612.03801): first-person 3D levels, from pixels, velocities, or both.

The package `deepmind_lab` is imported when an environment is made, so only in a worker's process.
Its rules were read from its source (google-deepmind/lab on GitHub, commit b1db91a of January 2023).
The tests use a stand-in that enforces the same rules.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dreamer.envs import spec
from dreamer.envs.spec import EnvSettings, Space
from dreamer.envs.wrappers import FrameEnv
from dreamer.errors import UserError, suggest

#: The levels of the TF1 release: short name -> (the level's own name, seconds of an episode).
LEVELS = {
    "collect": ("rooms_collect_good_objects_train", 60),
    "collect_few": ("explore_object_rewards_few", 90),
    "compare": ("psychlab_sequential_comparison", 300),
    "doors_large": ("explore_obstructed_goals_large", 120),
    "doors_small": ("explore_obstructed_goals_small", 90),
    "explore_small": ("explore_object_locations_small", 90),
    "find_large": ("explore_goal_locations_large", 120),
    "find_small": ("explore_goal_locations_small", 90),
    "keys": ("rooms_keys_doors_puzzle", 60),
    "lasertag_1": ("lasertag_one_opponent_small", 240),
    "lasertag_3": ("lasertag_three_opponents_small", 240),
    "recognize": ("psychlab_visual_search", 150),
    "watermaze": ("rooms_watermaze", 120),
}
#: Their folder below the simulator's game_scripts/levels; it does not search subfolders.
FOLDER = "contributed/dmlab30/"
#: Frames per second, the simulator's default; its rewards and clocks count frames.
FRAMES_PER_SECOND = 60
#: The 9 actions of the TF1 release, in the order of the simulator's action_spec(): look right and
#: look up (pixels per frame), strafe right, move forward, fire, jump, crouch. None stands still.
ACTIONS = (
    (0, 0, 0, 1, 0, 0, 0),  # forward
    (0, 0, 0, -1, 0, 0, 0),  # back
    (0, 0, -1, 0, 0, 0, 0),  # to the left
    (0, 0, 1, 0, 0, 0, 0),  # to the right
    (-20, 0, 0, 0, 0, 0, 0),  # look left
    (20, 0, 0, 0, 0, 0, 0),  # look right
    (-20, 0, 0, 1, 0, 0, 0),  # look left and go
    (20, 0, 0, 1, 0, 0, 0),  # look right and go
    (0, 0, 0, 0, 1, 0, 0),  # fire
)
IMAGE = "RGB_INTERLEAVED"
CLOCK = "FRAMES_REMAINING_AT_60"
#: Observations besides the image: the agent's velocity along and around the axes.
VECTORS = ("VEL.TRANS", "VEL.ROT")
MISSING = (
    "deepmind_lab is not installed for this Python ({error}), and no package index has it: build "
    "it from github.com/google-deepmind/lab with Python 3.11 or older and Bazel 7 (bazel build -c "
    "opt //python/pip_package:build_pip_package, then bazel-bin/python/pip_package/"
    "build_pip_package /tmp/dmlab), pip install the wheel from /tmp/dmlab, and also dm_env, six "
    "and setuptools<81, which it imports"
)


def find_level(name: str) -> tuple[str, int]:
    """Returns (own name, seconds of an episode) of a short or own name; UserError if unknown."""
    known = LEVELS | {level: (level, seconds) for level, seconds in LEVELS.values()}
    name = name.removeprefix(FOLDER)
    if name not in known:
        near = suggest(name, known, most=3, prefix="dmlab_")
        raise UserError(
            f"unknown task 'dmlab_{name}'{near}; levels are {', '.join(LEVELS)}, or their own "
            "names, as in dmlab_rooms_watermaze"
        )
    return known[name]


class DMLab(FrameEnv):
    """One level of DeepMind Lab.

    Observations: with `image`, `image` uint8 [image_size, image_size, 3]; with `state`, the vectors
    `VEL.TRANS` and `VEL.ROT`, float32 [3] each. The image size must be a multiple of 4. Without an
    EGL device the simulator renders in software, as in the TF1 release.

    An episode has reached the level's time limit if it ends with at most two steps left on the
    level's clock: one for the last step, which is not observed, and one for the clock's rounding. A
    true end within these two steps is taken for the limit. An earlier end is terminal. The
    simulator shows nothing after an end, so the last timestep repeats the observation before it.
    (The TF1 release has a black image there, which a world model would have to foresee.)

    Args:
        name: A key of `LEVELS`, or a level's own name.
        settings: How to make the environment. Its time limit applies besides the level's own, and
            is no terminal.

    Raises:
        UserError: The level does not exist, the package, or one that it imports, is missing, or the
            simulator refuses a setting.
    """

    def __init__(self, name: str, settings: EnvSettings):
        level, seconds = find_level(name)
        super().__init__(settings, settings.time_limit)
        if settings.image_size % 4:
            raise UserError(
                f"envs.image_size is {settings.image_size}; DeepMind Lab draws multiples of 4 "
                "pixels only"
            )
        self._image, self._vectors = settings.image, VECTORS if settings.state else ()
        renderer = "software" if settings.egl_device < 0 else "hardware"
        self._lab = self._make(level, settings, renderer)
        self.obs_space = {key: Space((3,), np.dtype(np.float32)) for key in self._vectors}
        if self._image:
            self.obs_space["image"] = spec.image_space(settings.image_size)
        self.act_space = spec.one_hot_space(len(ACTIONS))
        limit = min(self._limit, seconds * FRAMES_PER_SECOND)
        self.info = {"level": level, "renderer": renderer, "time_limit": str(limit)}
        self._random = np.random.default_rng()

    def _make(self, level: str, settings: EnvSettings, renderer: str) -> Any:
        """Starts the simulator. Its settings are texts, and it takes lists, not tuples."""
        size = str(settings.image_size)
        config = {"width": size, "height": size, "logLevel": "WARN"}
        if renderer == "hardware":
            config["gpuDeviceIndex"] = str(settings.egl_device)
        names = [*([IMAGE] if self._image else []), *self._vectors, CLOCK]
        try:
            import deepmind_lab

            return deepmind_lab.Lab(FOLDER + level, names, config=config, renderer=renderer)
        except ImportError as error:
            raise UserError(MISSING.format(error=error)) from error
        except ValueError as error:
            raise UserError(f"this DeepMind Lab's {level} lacks what we need: {error}") from error

    def _start(self, seed: int | None) -> None:
        if seed is not None:
            self._random = np.random.default_rng(seed)
        # The simulator refuses or truncates seeds other than a Python int of 31 bits. The episode's
        # number is constant, so that nothing depends on how many episodes there were before.
        self._lab.reset(episode=0, seed=int(self._random.integers(2**31)))
        self._store()

    def step(self, action: np.ndarray) -> spec.Timestep:
        """As in `FrameEnv`, but the simulator itself repeats the action."""
        self._check_running()
        self.act_space.check(action, "action")
        frames = int(min(self.action_repeat, self._limit - self._frames))
        native = np.array(ACTIONS[action.argmax()], np.intc)
        reward = self._lab.step(native, num_steps=frames)
        self._frames += frames
        ended = not self._lab.is_running()
        terminal = ended and self._remaining > 2 * self.action_repeat
        self._over = ended or self._frames >= self._limit
        if not ended:
            self._store()
        return spec.make_timestep(self._observe(), reward, is_last=self._over, is_terminal=terminal)

    def _store(self) -> None:
        """Stores the simulator's observations, which it gives only while the episode runs."""
        shown = self._lab.observations()
        self._remaining = float(shown[CLOCK][0])
        self._shown = {key: shown[key].astype(np.float32) for key in self._vectors}
        if self._image:
            self._shown["image"] = shown[IMAGE]

    def _observe(self) -> dict[str, np.ndarray]:
        return {key: value.copy() for key, value in self._shown.items()}

    def close(self) -> None:
        super().close()
        self._lab.close()
