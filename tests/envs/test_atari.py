"""Games of the real emulator, compared with the published protocol."""

import sys

import numpy as np
import pytest
from ale_py import Action, ALEInterface, LoggerMode, roms
from PIL import Image
from pool_env import PoolEnv
from whole_runs import python

from dreamer.envs.conformance import check_env
from dreamer.envs.make import make_env
from dreamer.envs.spec import Space
from dreamer.errors import UserError


def actions_of(env, count, seed=0):
    rng = np.random.default_rng(seed)
    return [env.act_space.sample(rng) for _ in range(count)]


def play(env, actions):
    """Returns the timesteps up to the episode's end, and the remaining actions."""
    timesteps = []
    for index, action in enumerate(actions):
        timesteps.append(env.step(action))
        if timesteps[-1]["is_last"]:
            return timesteps, actions[index + 1 :]
    return timesteps, []


@pytest.mark.parametrize("make", [
    lambda: make_env("atari_pong", action_repeat=4, state=True),
    lambda: make_env("atari_breakout", action_repeat=1, time_limit=15, training=True),
    lambda: PoolEnv("atari_pong", action_repeat=4, image=False, state=True, training=True),
])  # fmt: skip
def test_conforms(make):
    check_env(make())


def test_spaces():
    env = make_env("atari_pong", action_repeat=4, state=True)
    assert env.obs_space == {
        "image": Space((64, 64, 3), np.uint8, 0, 255),
        "ram": Space((128,), np.float32, -0.5, 0.5),
    }
    assert env.act_space == Space((6,), np.float32, 0, 1, discrete=True)
    assert env.info == {
        "time_limit": "108000", "actions": "noop fire right left rightfire leftfire",
    }  # fmt: skip
    with pytest.raises(UserError, match="no observation is left"):
        make_env("atari_pong", image=False)


class Literal:
    """The protocol step by step, with every frame stored; shares only the seed with the adapter."""

    def __init__(self, game, seed):
        rng = np.random.default_rng(seed)
        ALEInterface.setLoggerMode(LoggerMode.Error)
        self.ale = ALEInterface()
        self.ale.setInt("random_seed", int(rng.integers(1, 2**31)))
        self.ale.setFloat("repeat_action_probability", 0.25)
        self.ale.loadROM(roms.get_rom_path(game))
        self.ale.reset_game()
        self.screens = [self.ale.getScreenRGB()]
        self.act(Action.NOOP, int(rng.integers(1, 31)))

    def act(self, action, frames):
        """Returns the points of each frame."""
        points = []
        for _ in range(frames):
            points.append(self.ale.act(action))
            self.screens.append(self.ale.getScreenRGB())
        return points

    def image(self, frames=2):
        last = np.stack(self.screens[-frames:]).max(axis=0)
        return np.array(Image.fromarray(last).resize((64, 64), Image.Resampling.BOX))


@pytest.mark.parametrize("game, repeat", [("space_invaders", 4), ("seaquest", 1)])
def test_the_published_protocol(game, repeat):
    env = make_env(f"atari_{game}", action_repeat=repeat, state=True)
    oracle = Literal(game, 7)
    timestep = env.reset(7)
    np.testing.assert_array_equal(timestep["image"], oracle.image())
    legal = oracle.ale.getMinimalActionSet()
    points, flickers = 0, False
    for action in actions_of(env, 150):
        timestep = env.step(action)
        gained = sum(oracle.act(legal[action.argmax()], repeat))
        np.testing.assert_array_equal(timestep["image"], oracle.image())
        np.testing.assert_array_equal(
            np.round((timestep["ram"] + 0.5) * 255).astype(np.uint8), oracle.ale.getRAM()
        )
        assert timestep["reward"] == gained and not timestep["is_last"]
        points = max(points, gained)
        flickers |= not np.array_equal(oracle.image(), oracle.image(frames=1))
    if game == "space_invaders":
        assert points >= 5  # raw, not clipped
        assert flickers  # without the maximum the pictures would be others


def test_noops_follow_the_seed_and_without_one_every_game_is_another():
    env = make_env("atari_pong", action_repeat=4)
    for seeds in (range(8), [None] * 8):
        counts = set()
        for seed in seeds:
            env.reset(seed)
            counts.add(env._ale.getEpisodeFrameNumber())
        assert counts <= set(range(1, 31)) and len(counts) > 3
    assert env._ale.getFloat("repeat_action_probability") == 0.25


def test_a_lost_life_ends_a_training_episode_and_the_game_goes_on():
    """The training episodes of a game, one after the other, are the whole game frame by frame."""
    whole = make_env("atari_breakout", action_repeat=1)
    parts = make_env("atari_breakout", action_repeat=1, training=True)
    start = whole.reset(3)
    actions = actions_of(whole, 4000)
    game, left = play(whole, actions)
    assert game[-1]["is_terminal"] and left
    first, timesteps = parts.reset(3), []
    np.testing.assert_array_equal(first["image"], start["image"])
    for life in range(5):
        played, actions = play(parts, actions)
        assert played[-1]["is_terminal"] and played[-1]["cont"] == 0
        assert not any(timestep["is_last"] for timestep in played[:-1])
        timesteps += played
        if life < 4:
            again = parts.reset(99 + life)  # the seed is for a new game
            np.testing.assert_array_equal(again["image"], played[-1]["image"])
            assert again["is_first"] and not again["is_last"] and again["reward"] == 0
    assert actions == left
    for ours, theirs in zip(timesteps, game, strict=True):
        np.testing.assert_array_equal(ours["image"], theirs["image"])
        assert ours["reward"] == theirs["reward"]
    # The game is over: the next episode is a new one.
    np.testing.assert_array_equal(parts.reset(3)["image"], start["image"])


def test_the_limit_is_the_games_and_not_a_lifes():
    def env(limit):
        return make_env("atari_breakout", action_repeat=1, time_limit=limit, training=True)

    free = env(0)
    free.reset(3)
    actions = actions_of(free, 2000)
    first, left = play(free, actions)
    assert first[-1]["is_terminal"]
    limited = env(len(first) + 12)
    limited.reset(3)
    play(limited, actions)
    limited.reset(3)
    second, _ = play(limited, left)
    assert len(second) == 12 and second[-1]["is_last"] and not second[-1]["is_terminal"]


def test_the_limit_is_no_terminal_and_a_new_game_follows():
    env = make_env("atari_breakout", action_repeat=4, time_limit=30, training=True)
    start = env.reset(3)["image"]
    play(env, actions_of(env, 5))  # an episode left in the middle
    np.testing.assert_array_equal(env.reset(3)["image"], start)
    timesteps, _ = play(env, actions_of(env, 20))
    assert len(timesteps) == 8  # the last of two frames
    last = timesteps[-1]
    assert last["is_last"] and not last["is_terminal"] and last["cont"] == 1
    with pytest.raises(RuntimeError, match="reset"):
        env.step(actions_of(env, 1)[0])
    np.testing.assert_array_equal(env.reset(3)["image"], start)


def test_games_that_cannot_be_played_and_a_missing_emulator_are_named(monkeypatch):
    with pytest.raises(UserError, match="unknown task 'atari_pongg'; did you mean 'atari_pong'"):
        make_env("atari_pongg")
    with pytest.raises(UserError, match="there are adventure, air_raid, .*zaxxon; tasks are"):
        make_env("atari_0123456789")
    with pytest.raises(UserError, match="atari_combat is a game for two players"):
        make_env("atari_combat")
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(UserError, match="pip install 'ale-py"):
        make_env("atari_pong")


def test_the_emulator_prints_nothing():
    code = "from dreamer.envs.make import make_env\nenv = make_env('atari_pong')\nenv.reset(0)\n"
    done = python("-c", code, check=True)
    assert (done.stdout, done.stderr) == ("", "")


TWO_PLAYERS = {"combat", "joust", "maze_craze", "warlords"}


@pytest.mark.slow
@pytest.mark.parametrize("game", sorted({*roms.get_all_rom_ids()} - TWO_PLAYERS))
def test_every_game_of_the_package(game):
    check_env(make_env(f"atari_{game}", action_repeat=4, state=True), steps=30)
