"""Atari 2600 games through the Arcade Learning Environment (arXiv 1207.4708).

The protocol is that of arXiv 1709.06009 (sticky actions, at most half an hour of play) with the
preprocessing of DQN (doi 10.1038/nature14236: no-ops, maximum of two frames, action repeat, lost
lives as ends in training), in color at 64x64 as in Dreamer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dreamer.envs.spec import EnvSettings, Space, image_space, one_hot_space
from dreamer.envs.wrappers import FrameEnv, resize
from dreamer.errors import UserError, suggest

#: Probability, in each frame, that the emulator repeats the previous frame's action.
STICKY = 0.25
#: A game starts with 1 to this many frames without action.
NOOPS = 30
#: Frames of a game: half an hour at 60 frames per second.
FRAME_LIMIT = 108_000


class Atari(FrameEnv):
    """One game. Actions are one-hot, over the game's minimal set.

    Observations: with `image`, `image` uint8 [image_size, image_size, 3]: the pixel-wise maximum of
    the last two frames, because many games draw their sprites in turns, resized by averaging. With
    `state`, `ram` float32 [128]: the console's memory, its bytes scaled to [-0.5, 0.5].

    Rewards are the game's own points, summed over the frames of a step. An episode is a whole game;
    evaluation counts whole games. With `training`, an episode also ends, terminally, with each lost
    life. The game itself continues: `reset` starts an episode where the lost life left the game, as
    in DQN, so that the agent also learns the situations of later lives. Such an episode depends on
    the earlier ones; only the seed of the game's first episode counts, for the whole game. A life
    that is lost when the counter reaches 0 ends nothing by itself, because some games show their
    end for a while.

    The time limit counts the frames of a game, without the no-ops at its start; 0 means 108,000.
    After it the next episode starts a new game.

    Args:
        game: Name of the ROM, as in "space_invaders".
        settings: How to make the environment.

    Raises:
        UserError: The game does not exist, ale-py is not installed, or no observation is left.
    """

    def __init__(self, game: str, settings: EnvSettings):
        limit = settings.time_limit or FRAME_LIMIT
        super().__init__(settings, limit)
        self._ale, self._rom = _load_emulator(game)
        self._actions = self._ale.getMinimalActionSet()
        self._noop = self._ale.getLegalActionSet()[0]
        self._size, self._training = settings.image_size, settings.training
        self._screens = np.zeros((2, *self._ale.getScreenDims(), 3), np.uint8)
        self._random = np.random.default_rng()
        self._lives = 0
        self.act_space = one_hot_space(len(self._actions))
        self.obs_space = {}
        if settings.image:
            self.obs_space["image"] = image_space(self._size)
        if settings.state:
            size = self._ale.getRAMSize()
            self.obs_space["ram"] = Space((size,), np.dtype(np.float32), -0.5, 0.5)
        names = " ".join(action.name.lower() for action in self._actions)
        self.info = {"time_limit": str(limit), "actions": names}

    def _start(self, seed: int | None) -> None:
        if self.goes_on:
            self.goes_on = False
            return
        random = self._random if seed is None else np.random.default_rng(seed)
        self._ale.setInt("random_seed", int(random.integers(1, 2**31)))
        self._ale.loadROM(self._rom)  # sets the seed
        self._ale.reset_game()
        self._grab()
        for _ in range(random.integers(1, NOOPS, endpoint=True)):
            self._ale.act(self._noop)
            if self._ale.game_over(with_truncation=False):
                self._ale.reset_game()
            self._grab()
        self._lives = self._ale.lives()

    def _decode(self, action: np.ndarray) -> Any:
        self.act_space.check(action, "action")
        return self._actions[int(np.argmax(action))]

    def _advance(self, action: Any) -> tuple[float, bool, bool]:
        reward = self._ale.act(action)
        self._grab()
        before, self._lives = self._lives, self._ale.lives()
        over = self._ale.game_over(with_truncation=False)
        lost = not over and self._training and 0 < self._lives < before
        self.goes_on = lost and self._frames < self._limit
        return reward, over or lost, over or lost

    def _grab(self) -> None:
        """Stores the present frame in place of the older of the two stored ones."""
        self._screens = self._screens[::-1]
        self._ale.getScreenRGB(self._screens[0])

    def _observe(self) -> dict[str, np.ndarray]:
        obs = {}
        if "image" in self.obs_space:
            obs["image"] = resize(self._screens.max(0), self._size)
        if "ram" in self.obs_space:
            obs["ram"] = self._ale.getRAM().astype(np.float32) / 255.0 - 0.5
        return obs


def _load_emulator(game: str) -> tuple[Any, str]:
    """Returns the emulator with the game loaded, and the path of the game's ROM."""
    try:
        from ale_py import ALEInterface, LoggerMode, roms
    except ImportError as error:
        raise UserError(
            f"atari_{game} needs the emulator, which is not installed: pip install 'ale-py>=0.10' "
            "(it brings the games; its license is GPL-2)"
        ) from error
    known = roms.get_all_rom_ids()
    if game not in known:
        near = suggest(game, known, most=3, prefix="atari_")
        raise UserError(
            f"unknown task 'atari_{game}'{near or '; there are ' + ', '.join(sorted(known))}; "
            "tasks are named atari_<game>, as in atari_space_invaders, after ale-py's games"
        )
    ALEInterface.setLoggerMode(LoggerMode.Error)  # else each load prints a banner
    try:
        rom = str(roms.get_rom_path(game))
    except OSError as error:
        raise UserError(f"atari_{game}: ale-py cannot read the game ({error})") from error
    # Loading one of these would end the process.
    if ALEInterface.isSupportedROM(rom) is None:
        raise UserError(f"atari_{game} is a game for two players only; choose another one")
    ale = ALEInterface()
    ale.setFloat("repeat_action_probability", STICKY)
    ale.loadROM(rom)
    return ale, rom
