"""DeepMind Lab (arXiv 1612.03801): first-person 3D levels, from pixels, velocities, or both.

The package `deepmind_lab` is imported when an environment is made, so in its worker's process
alone. What it promises and what it refuses was read from its source (google-deepmind/lab on GitHub,
commit b1db91a of January 2023); the tests hold this adapter to a stand-in that is as strict.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np

from dreamer.envs.spec import Space, Timestep, make_timestep
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
#: Where they lie below the simulator's game_scripts/levels; it does not search subfolders.
FOLDER = "contributed/dmlab30/"
#: Frames of a second, the simulator's default; its rewards and clocks count in them.
FRAMES_PER_SECOND = 60
#: The 9 actions of the TF1 release, in the order of the simulator's action_spec(): look right and
#: look up (pixels a frame), strafe right, move forward, fire, jump, crouch. None stands still.
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
#: Observations besides the image: own velocity, along and around the axes.
VECTORS = ("VEL.TRANS", "VEL.ROT")
MISSING = (
    "deepmind_lab is not installed for this Python ({error}), and no package index has it: build "
    "it from github.com/google-deepmind/lab with Python 3.11 or older and Bazel 7 (bazel build -c "
    "opt //python/pip_package:build_pip_package, then bazel-bin/python/pip_package/"
    "build_pip_package /tmp/dmlab), pip install the wheel from /tmp/dmlab, and also dm_env, six "
    "and setuptools<81, which it imports"
)


def find_level(name: str) -> tuple[str, int]:
    """Returns (the level's own name, seconds of an episode) for a short or an own name.

    Raises:
        UserError: no such level.
    """
    known = {**LEVELS, **{level: (level, seconds) for level, seconds in LEVELS.values()}}
    name = name.removeprefix(FOLDER)
    if name not in known:
        near = suggest(name, known, most=3, prefix="dmlab_")
        raise UserError(
            f"unknown task 'dmlab_{name}'{near}; levels are {', '.join(LEVELS)}, or their own "
            "names, as in dmlab_rooms_watermaze"
        )
    return known[name]


class DMLab:
    """One level of DeepMind Lab.

    Observations: `image` uint8 [image_size, image_size, 3] if `image`; with `state` the vectors
    `VEL.TRANS` and `VEL.ROT`, float32 [3] each.

    An episode that ends with no more than two steps left on the level's clock has reached its time
    limit; one that ends sooner has ended by itself. One of those two steps is for the last, which
    is not seen, the other for what rounding the clock may do; a true end within them is taken for
    the limit. The simulator shows nothing after an end, so the last timestep repeats the
    observation before it (the TF1 release puts a black image there, which a world model would have
    to foresee).

    Args:
        name: a key of `LEVELS`, or a level's own name.
        action_repeat: frames an action is held, by the simulator itself.
        time_limit: frames after which an episode is cut, which is no terminal, besides the level's
            own limit; 0 for the latter alone.
        image, state: which observations there are; at least one.
        image_size: pixels, a multiple of 4.
        egl_device: GPU to render on; -1 renders in software, as the TF1 release does.

    Raises:
        UserError: no such level, the package is missing, or settings that the simulator refuses.
    """

    def __init__(
        self,
        name: str,
        *,
        action_repeat: int = 4,
        time_limit: int = 0,
        image: bool = True,
        state: bool = False,
        image_size: int = 64,
        egl_device: int = -1,
    ):
        level, seconds = find_level(name)
        if not (image or state):
            raise UserError("no observation is left: set envs.image or envs.state to true")
        if image_size % 4:
            raise UserError(
                f"envs.image_size is {image_size}; DeepMind Lab draws multiples of 4 pixels only"
            )
        self._image, self._vectors = image, VECTORS if state else ()
        renderer = "software" if egl_device < 0 else "hardware"
        self._lab = self._make(level, image_size, renderer, egl_device)
        self.action_repeat = action_repeat
        self.obs_space = {key: Space((3,), np.dtype(np.float32)) for key in self._vectors}
        if image:
            self.obs_space["image"] = Space((image_size, image_size, 3), np.dtype(np.uint8), 0, 255)
        self.act_space = Space((len(ACTIONS),), np.dtype(np.float32), 0.0, 1.0, discrete=True)
        self._actions = [np.array(action, np.intc) for action in ACTIONS]
        own = seconds * FRAMES_PER_SECOND
        self._limit = time_limit or math.inf
        self.info = {
            "level": level, "renderer": renderer, "time_limit": str(min(time_limit or own, own)),
        }  # fmt: skip
        self._seeds = np.random.default_rng()
        self._frames, self._over = 0, True

    def _make(self, level: str, image_size: int, renderer: str, egl_device: int) -> Any:
        """Returns the simulator; its settings are texts, and its lists must be lists."""
        config = {"width": str(image_size), "height": str(image_size), "logLevel": "WARN"}
        if egl_device >= 0:
            config["gpuDeviceIndex"] = str(egl_device)
        names = [*([IMAGE] if self._image else []), *self._vectors, CLOCK]
        try:
            return _load().Lab(FOLDER + level, names, config=config, renderer=renderer)
        except ValueError as error:
            raise UserError(f"this DeepMind Lab's {level} lacks what we need: {error}") from error

    def reset(self, seed: int | None = None) -> Timestep:
        if seed is not None:
            self._seeds = np.random.default_rng(seed)
        # Python's int in 31 bits: others are refused or cut. The episode's number is always the
        # same, so that nothing depends on how many there were before.
        self._lab.reset(episode=0, seed=int(self._seeds.integers(2**31)))
        self._frames, self._over = 0, False
        self._observe()
        return make_timestep(self._copy(), is_first=True)

    def step(self, action: np.ndarray) -> Timestep:
        if self._over:
            raise RuntimeError("step() after the episode's last timestep: call reset() first")
        self.act_space.check(action, "action")
        frames = int(min(self.action_repeat, self._limit - self._frames))
        reward = self._lab.step(self._actions[int(action.argmax())], num_steps=frames)
        self._frames += frames
        ended = not self._lab.is_running()
        terminal = ended and self._remaining > 2 * self.action_repeat
        self._over = ended or self._frames >= self._limit
        if not ended:
            self._observe()
        return make_timestep(self._copy(), reward, is_last=self._over, is_terminal=terminal)

    def _observe(self) -> None:
        """Takes over what the simulator shows; it can be asked only while the episode runs."""
        shown = self._lab.observations()
        self._remaining = float(shown[CLOCK][0])
        self._shown = {key: shown[key].astype(np.float32) for key in self._vectors}
        if self._image:
            self._shown["image"] = shown[IMAGE]

    def _copy(self) -> dict[str, np.ndarray]:
        return {key: value.copy() for key, value in self._shown.items()}

    def close(self) -> None:
        self._lab.close()


def _load() -> ModuleType:
    """Returns the package.

    Raises:
        UserError: it, or what it imports, is missing.
    """
    try:
        import deepmind_lab
    except ImportError as error:
        raise UserError(MISSING.format(error=error)) from error
    return deepmind_lab
