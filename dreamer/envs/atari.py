"""Atari 2600 games through the Arcade Learning Environment (arXiv 1207.4708).

The protocol is that of arXiv 1709.06009 (sticky actions, at most half an hour of play) with the
preprocessing of DQN (doi 10.1038/nature14236: no-ops, maximum of two frames, action repeat, life
loss as an end in training), in colour at 64x64 as Dreamer has it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dreamer.envs.gym_spaces import resize
from dreamer.envs.spec import Env, Space, Timestep, make_timestep
from dreamer.errors import UserError, suggest

#: Probability, each frame, that the emulator carries out the frame before's action again.
STICKY = 0.25
#: A game starts with 1 to this many frames of no action.
NOOPS = 30
#: Frames of a game: half an hour at 60 a second.
FRAME_LIMIT = 108_000


def make_atari(game: str, **settings: Any) -> Env:
    """Returns the environment `atari_<game>`; settings as `Atari` takes them.

    Raises:
        UserError: no such game, ale-py is not installed, or no observation is left.
    """
    return Atari(game, **settings)


class Atari:
    """One game, with one-hot actions: those of the game's minimal set.

    Observations: `image` uint8 [image_size, image_size, 3] if `image`, the pixel-wise maximum of
    the last two frames (many games draw their sprites in turns), then resized by averaging. With
    `state`, `ram` float32 [128]: the console's memory, its bytes scaled to [-0.5, 0.5].

    Rewards are the game's own points, summed over the frames of a step. An episode is a whole game,
    which is what evaluation counts. In training it also ends, terminal, with each lost life; the
    game itself goes on: `reset` then starts an episode where the lost life left it, as in DQN, so
    that the later lives, which start in other situations, are learnt as well. Such an episode is
    no function of its seed and actions alone: only that of the game's first one counts, for the
    whole game. A life that is lost when the counter comes to 0 ends nothing by itself: some games
    go on showing their end for a while.

    Args:
        game: ROM's name, as in "space_invaders".
        action_repeat: frames an action is held; an end cuts them short.
        time_limit: frames of a game, besides the no-ops at its start; 0 for 108,000. Reaching it
            is no terminal, and the next episode starts a new game.
        image, state: which observations there are; at least one.
        image_size: pixels.
        training: end episodes with lost lives.
    """

    def __init__(
        self,
        game: str,
        *,
        action_repeat: int = 4,
        time_limit: int = 0,
        image: bool = True,
        state: bool = False,
        image_size: int = 64,
        training: bool = False,
    ):
        if not (image or state):
            raise UserError("no observation is left: set envs.image or envs.state to true")
        self._ale, self._rom = _emulator(game)
        self._actions = self._ale.getMinimalActionSet()
        self._noop = self._ale.getLegalActionSet()[0]
        self._limit = time_limit or FRAME_LIMIT
        self._size, self._training = image_size, training
        self._screens = np.zeros((2, *self._ale.getScreenDims(), 3), np.uint8)
        self._stream = np.random.default_rng()
        self._frames = self._lives = 0
        self._over, self.goes_on = True, False
        self.action_repeat = action_repeat
        self.act_space = Space((len(self._actions),), np.dtype(np.float32), 0, 1, discrete=True)
        self.obs_space: dict[str, Space] = {}
        if image:
            self.obs_space["image"] = Space((image_size, image_size, 3), np.dtype(np.uint8), 0, 255)
        if state:
            size = self._ale.getRAMSize()
            self.obs_space["ram"] = Space((size,), np.dtype(np.float32), -0.5, 0.5)
        names = " ".join(action.name.lower() for action in self._actions)
        self.info = {"time_limit": str(self._limit), "actions": names}

    def reset(self, seed: int | None = None) -> Timestep:
        if not self.goes_on:
            self._start_game(self._stream if seed is None else np.random.default_rng(seed))
        self._over = self.goes_on = False
        return make_timestep(self._observe(), is_first=True)

    def _start_game(self, rng: np.random.Generator) -> None:
        """Loads the game anew, since ALE takes a seed only then, and lets some frames pass."""
        self._ale.setInt("random_seed", int(rng.integers(1, 2**31)))
        self._ale.loadROM(self._rom)
        self._ale.reset_game()
        self._grab()
        for _ in range(rng.integers(1, NOOPS, endpoint=True)):
            self._ale.act(self._noop)
            if self._ale.game_over(with_truncation=False):
                self._ale.reset_game()
            self._grab()
        self._frames, self._lives = 0, self._ale.lives()

    def step(self, action: np.ndarray) -> Timestep:
        if self._over:
            raise RuntimeError("step() after the episode's last timestep: call reset() first")
        self.act_space.check(action, "action")
        native = self._actions[int(np.argmax(action))]
        reward = 0.0
        for _ in range(self.action_repeat):
            reward += self._ale.act(native)
            self._frames += 1
            self._grab()
            ended = self._ended()
            self._over = ended or self._frames >= self._limit
            if self._over:
                break
        return make_timestep(self._observe(), reward, is_last=self._over, is_terminal=ended)

    def _ended(self) -> bool:
        """Whether the frame just emulated ends the episode by the task's own rules."""
        before, self._lives = self._lives, self._ale.lives()
        if self._ale.game_over(with_truncation=False):
            return True
        lost = self._training and 0 < self._lives < before
        self.goes_on = lost and self._frames < self._limit
        return lost

    def _grab(self) -> None:
        """Keeps the present frame beside the one before, in the place of the one before that."""
        self._screens = self._screens[::-1]
        self._ale.getScreenRGB(self._screens[0])

    def _observe(self) -> dict[str, np.ndarray]:
        obs = {}
        if "image" in self.obs_space:
            obs["image"] = resize(self._screens.max(0), self._size)
        if "ram" in self.obs_space:
            obs["ram"] = self._ale.getRAM().astype(np.float32) / 255.0 - 0.5
        return obs

    def close(self) -> None:
        self._over = True


def _emulator(game: str) -> tuple[Any, str]:
    """Returns ALE's interface with that game loaded, and the path of its ROM."""
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
