"""The adapter of DeepMind Lab, with a stand-in that is as strict as the real package.

No index has the real package. These tests only show that the adapter keeps to its interface.
"""

import importlib.util
import sys

import numpy as np
import pytest
from pool_env import PoolEnv
from whole_runs import STANDIN, python

from dreamer.envs.conformance import check_env
from dreamer.envs.dmlab import ACTIONS, LEVELS
from dreamer.envs.make import make_env
from dreamer.errors import UserError

FORWARD = np.eye(9, dtype=np.float32)[0]


@pytest.fixture
def lab(monkeypatch):
    """Makes the stand-in importable, also in workers, which find modules as this process does."""
    monkeypatch.syspath_prepend(STANDIN)
    import deepmind_lab

    yield deepmind_lab
    del sys.modules["deepmind_lab"]


@pytest.mark.parametrize("settings", [
    {"action_repeat": 4},
    {"action_repeat": 7, "state": True, "time_limit": 100},
    {"action_repeat": 1, "image": False, "state": True},
    {"action_repeat": 4, "image_size": 32, "egl_device": 0},
])  # fmt: skip
def test_conforms_in_a_worker(lab, settings):
    check_env(PoolEnv("dmlab_collect", **settings), steps=40)


@pytest.mark.parametrize("short", LEVELS)
def test_every_level_by_each_of_its_names(lab, short):
    level, seconds = LEVELS[short]
    names = (short, level, f"contributed/dmlab30/{level}")
    envs = [make_env(f"dmlab_{name}", action_repeat=60) for name in names]
    for env in envs:
        assert env.info["level"] == level and env.info["time_limit"] == str(60 * seconds)
        assert env.act_space.shape == (9,) and env.act_space.discrete
    left = np.eye(9, dtype=np.float32)[2]
    ours = whole_episode(envs[0], left)
    assert len(ours) == seconds + 1  # strafing finds nothing, so only the time limit ends it
    last = ours[-1]
    assert last["is_last"] and not last["is_terminal"] and last["cont"] == 1
    np.testing.assert_array_equal(last["image"], ours[-2]["image"])  # nothing is shown at the end
    assert ours[-2]["image"].std() > 10
    for other in envs[1:]:
        np.testing.assert_array_equal(other.reset(3)["image"], ours[0]["image"])
        np.testing.assert_array_equal(other.step(left)["image"], ours[1]["image"])


@pytest.mark.parametrize("short", ["collect", "compare", "keys", "recognize"])
def test_an_end_before_the_limit_is_terminal(lab, short):
    env = make_env(f"dmlab_{short}", action_repeat=4)
    timesteps = whole_episode(env, FORWARD)
    assert len(timesteps) < 15 * LEVELS[short][1]
    assert timesteps[-1]["is_terminal"] and timesteps[-1]["cont"] == 0
    assert sum(float(timestep["reward"]) for timestep in timesteps) != 0


def test_an_end_in_the_last_two_steps_counts_as_the_limit(lab):
    env = make_env("dmlab_watermaze", action_repeat=4, image=False, state=True)
    for remaining, terminal in [(4, False), (8, False), (9, True)]:
        env.reset(0)
        env._lab._world._ends = 2  # within the first step
        env._remaining = remaining
        assert env.step(FORWARD)["is_terminal"] == terminal


def whole_episode(env, chosen, seed=3):
    timesteps = [env.reset(seed)]
    while not timesteps[-1]["is_last"]:
        timesteps.append(env.step(chosen))
    env.close()
    assert env._lab.close() is False  # it is closed already
    return timesteps


def test_an_action_is_held_by_the_simulator_and_rewards_add_up(lab):
    single = make_env("dmlab_lasertag_1", action_repeat=1, time_limit=400)
    held = make_env("dmlab_lasertag_1", action_repeat=7, time_limit=400)
    singles, held_timesteps = whole_episode(single, FORWARD), whole_episode(held, FORWARD)
    assert (len(singles), len(held_timesteps)) == (401, 59)  # 400 frames, 57 times 7 and once 1
    rewards = [float(timestep["reward"]) for timestep in singles]
    for count, timestep in enumerate(held_timesteps[1:], 1):
        assert timestep["reward"] == sum(rewards[7 * count - 6 : 7 * count + 1])
        assert timestep["reward"].dtype == np.float32
        np.testing.assert_array_equal(timestep["image"], singles[min(7 * count, 400)]["image"])
    assert np.any(rewards) and not held_timesteps[-1]["is_terminal"]
    assert held._lab.num_steps() == 400  # the last one is shorter instead of overcounted


def test_actions_are_those_of_the_release(lab):
    spec = lab.Lab("contributed/dmlab30/rooms_watermaze", []).action_spec()
    meant = [
        {"MOVE_BACK_FORWARD": 1}, {"MOVE_BACK_FORWARD": -1},
        {"STRAFE_LEFT_RIGHT": -1}, {"STRAFE_LEFT_RIGHT": 1},
        {"LOOK_LEFT_RIGHT_PIXELS_PER_FRAME": -20}, {"LOOK_LEFT_RIGHT_PIXELS_PER_FRAME": 20},
        {"LOOK_LEFT_RIGHT_PIXELS_PER_FRAME": -20, "MOVE_BACK_FORWARD": 1},
        {"LOOK_LEFT_RIGHT_PIXELS_PER_FRAME": 20, "MOVE_BACK_FORWARD": 1},
        {"FIRE": 1},
    ]  # fmt: skip
    assert len(ACTIONS) == len(meant)
    for given, named in zip(ACTIONS, meant, strict=True):
        assert {s["name"]: v for s, v in zip(spec, given, strict=True) if v} == named
    env = make_env("dmlab_watermaze", image=False, state=True, action_repeat=1)
    env.reset(0)
    turns = [env.step(row)["VEL.ROT"][1] for row in np.eye(9, dtype=np.float32)]
    assert np.sign(turns).tolist() == [0, 0, 0, 0, -1, 1, -1, 1, 0]


def test_seeds_fix_episodes_whatever_came_before(lab):
    env, other = (make_env("dmlab_explore_small") for _ in range(2))
    first = env.reset(2**32 - 1)["image"]
    following = env.reset()["image"]
    other.reset(7)
    np.testing.assert_array_equal(other.reset(2**32 - 1)["image"], first)
    np.testing.assert_array_equal(other.reset()["image"], following)
    assert not np.array_equal(first, following)
    fresh = [make_env("dmlab_explore_small").reset()["image"] for _ in range(2)]
    assert not np.array_equal(*fresh)


def test_mistakes(lab):
    for settings, message in [
        ({"task": "dmlab_colect"}, "did you mean 'dmlab_collect'"),
        ({"task": "dmlab_rooms_watermase"}, "did you mean 'dmlab_rooms_watermaze'"),
        ({"task": "dmlab_"}, "unknown suite"),
        ({"task": "dmlab_keys", "image": False}, "no observation is left"),
        ({"task": "dmlab_keys", "image_size": 66}, "multiples of 4"),
    ]:
        with pytest.raises(UserError, match=message):
            make_env(**settings)
    env = make_env("dmlab_keys")
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(FORWARD)
    env.reset(0)
    with pytest.raises(ValueError, match="expected dtype float32"):
        env.step(FORWARD.astype(np.float64))


def test_a_level_without_a_clock_is_named(lab, monkeypatch):
    monkeypatch.setattr("dreamer.envs.dmlab.CLOCK", "TICKS")
    with pytest.raises(UserError, match=r"rooms_watermaze lacks .* Unknown observation 'TICKS'"):
        make_env("dmlab_watermaze")


@pytest.mark.skipif(importlib.util.find_spec("deepmind_lab") is not None, reason="it is installed")
def test_without_the_package_one_line_says_what_to_do(tmp_path):
    words = ("--task", "dmlab_collect", "--configs", "debug", "--logdir", tmp_path)
    done = python("-m", "dreamer.run", *words)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "No module named 'deepmind_lab'" in done.stderr and "build_pip_package" in done.stderr
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------- the stand-in is as strict as the real one

PATH = "contributed/dmlab30/rooms_watermaze"
BUILDING = [
    (lambda m: m.Lab(PATH, ("RGB",)), TypeError, "argument 2 must be list, not tuple"),
    (lambda m: m.Lab(PATH, ["RGBX"]), ValueError, "Unknown observation 'RGBX'."),
    (lambda m: m.Lab(PATH, [], {"width": 64}), TypeError, "bad argument type"),
    (lambda m: m.Lab(PATH, [], renderer="egl"), RuntimeError, 'actual "egl"!'),
    (lambda m: m.Lab("rooms_watermaze", []), RuntimeError, "Level not found: Failed to open file"),
    (lambda m: m.Lab(PATH, [], {"width": "65"}), RuntimeError, "multiple of 4. Actual 65"),
    (lambda m: m.Lab(PATH, [], {"gpuDeviceIndex": ""}), RuntimeError, "Invalid int setting"),
    (lambda m: m.Lab(PATH, [], {"logLevel": "WARNING"}), RuntimeError, 'setting: "logLevel"'),
    (lambda m: m.Lab(PATH, [], {"fps": "30"}), None, "no setting 'fps'"),
]
USING = [
    (lambda e: e.step([0] * 7), TypeError, "must be ndarray, not list"),
    (lambda e: e.step(action(), num_steps=4.0), TypeError, "must be int, not float"),
    (lambda e: e.step(action()[:6]), ValueError, r"must have shape \(7\)"),
    (lambda e: e.step(action().astype(np.int64)), ValueError, "must have dtype np.intc"),
    (lambda e: e.step(np.zeros((7, 2), np.intc)[:, 0]), None, "read as other numbers"),
    (lambda e: e.step(action(move=2)), None, "MOVE_BACK_FORWARD is 2"),
    (lambda e: e.step(action(), num_steps=0), None, "must be above 0"),
    (lambda e: e.reset(seed=np.int64(3)), ValueError, "'seed' must be int or None, was 'int64'"),
    (lambda e: e.reset(seed=2**31), None, "silently become another"),
]


def action(**values):
    names = ["look", "up", "strafe", "move", "fire", "jump", "crouch"]
    return np.array([values.get(name, 0) for name in names], np.intc)


@pytest.mark.parametrize("call, error, words", [*BUILDING, *USING])
def test_using_it_wrongly(lab, call, error, words):
    env = lab.Lab(PATH, [])
    env.reset(seed=1)
    with pytest.raises(error or lab.UndefinedError, match=words):
        call(lab if (call, error, words) in BUILDING else env)


def test_which_call_is_legal_when(lab):
    env = lab.Lab(PATH, ["VEL.ROT"])

    def runs():
        for call in () if env.is_running() else (lambda: env.step(action()), env.observations):
            with pytest.raises(RuntimeError, match="wrong status"):
                call()
        return env.is_running()

    assert not runs() and env.reset(seed=1) is True and runs()
    assert env.step(action(), num_steps=7199) == 0.0 and runs()
    env.step(action(), num_steps=5)
    assert not runs() and env.num_steps() == 7204  # frames asked for, not frames simulated
    assert env.reset(seed=1) and env.num_steps() == 0 and env.close() is True and not runs()
    with pytest.raises(lab.UndefinedError, match="freed memory"):
        env.reset()
