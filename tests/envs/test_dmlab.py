"""The adapter of DeepMind Lab against a stand-in as strict as the real one, and that stand-in.

The real package cannot be installed here: what these tests show of it is only that the adapter
keeps to its interface.
"""

import copy
import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pool_env import PoolEnv

from dreamer.config import load_config
from dreamer.envs import make_env
from dreamer.envs.conformance import check_env
from dreamer.envs.dmlab import ACTIONS, LEVELS, find_level
from dreamer.envs.pool import EnvPool
from dreamer.errors import UserError

STANDIN = str(Path(__file__).with_name("dmlab_standin"))
PATH = "contributed/dmlab30/rooms_watermaze"
FORWARD = np.eye(9, dtype=np.float32)[0]


@pytest.fixture
def lab(monkeypatch):
    """The stand-in, importable here and in workers, which find modules as this process does."""
    monkeypatch.syspath_prepend(STANDIN)
    import deepmind_lab

    yield deepmind_lab
    for name in [name for name in sys.modules if name.partition(".")[0] == "deepmind_lab"]:
        del sys.modules[name]


def built(lab, observations=("RGB_INTERLEAVED",), level=PATH, **config):
    return lab.Lab(level, list(observations), config={key: str(v) for key, v in config.items()})


def started(lab, **config):
    env = built(lab, **config)
    env.reset(seed=1)
    return env


def action(**values):
    names = ["look", "up", "strafe", "move", "fire", "jump", "crouch"]
    return np.array([values.get(name, 0) for name in names], np.intc)


# ------------------------------------------------------------------ the adapter

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
    ours, *others = [whole_episode(env, np.eye(9, dtype=np.float32)[2]) for env in envs]
    assert len(ours) == seconds + 1  # strafing finds nothing, so only the time limit ends it
    last = ours[-1]
    assert last["is_last"] and not last["is_terminal"] and last["cont"] == 1
    np.testing.assert_array_equal(last["image"], ours[-2]["image"])  # nothing is shown at the end
    assert ours[-2]["image"].std() > 10
    for other in others:
        np.testing.assert_array_equal(ours[seconds // 2]["image"], other[seconds // 2]["image"])


@pytest.mark.parametrize("short", ["collect", "compare", "keys", "recognize"])
def test_an_end_before_the_limit_is_terminal(lab, short):
    env = make_env(f"dmlab_{short}", action_repeat=4)
    records = whole_episode(env, FORWARD)
    assert len(records) < 15 * LEVELS[short][1]
    assert records[-1]["is_terminal"] and records[-1]["cont"] == 0
    assert sum(float(record["reward"]) for record in records) != 0


def test_an_end_in_the_last_two_steps_counts_as_the_limit(lab):
    env = make_env("dmlab_watermaze", action_repeat=4, image=False, state=True)
    for remaining, terminal in [(4, False), (8, False), (9, True)]:
        env.reset(0)
        env._lab._world._ends = 2  # within the first step
        env._remaining = remaining
        assert env.step(FORWARD)["is_terminal"] == terminal


def whole_episode(env, chosen, seed=3):
    records = [env.reset(seed)]
    while not records[-1]["is_last"]:
        records.append(env.step(chosen))
    env.close()
    return records


def test_an_action_is_held_by_the_simulator_and_rewards_add_up(lab):
    single = make_env("dmlab_lasertag_1", action_repeat=1, time_limit=400)
    held = make_env("dmlab_lasertag_1", action_repeat=7, time_limit=400)
    singles, held_records = whole_episode(single, FORWARD), whole_episode(held, FORWARD)
    assert (len(singles), len(held_records)) == (401, 59)  # 400 frames, 57 times 7 and once 1
    rewards = [float(record["reward"]) for record in singles]
    for count, record in enumerate(held_records[1:], 1):
        assert record["reward"] == sum(rewards[7 * count - 6 : 7 * count + 1])
        assert record["reward"].dtype == np.float32
        np.testing.assert_array_equal(record["image"], singles[min(7 * count, 400)]["image"])
    assert np.any(rewards) and not held_records[-1]["is_terminal"]
    assert held._lab.num_steps() == 400  # the last one is shorter instead of overcounted


def test_actions_are_those_of_the_release(lab):
    spec = built(lab).action_spec()
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


def test_workers_have_a_simulator_each(lab):
    with EnvPool("dmlab_find_small", 2, action_repeat=4) as pool:
        records = pool.reset([1, 2])
        assert not np.array_equal(records[0]["image"], records[1]["image"])
        before = pool.step(np.stack([FORWARD, FORWARD]))[1]["image"]
        pool.step(FORWARD[None], [0])
        np.testing.assert_array_equal(pool.reset([2, 1])[1]["image"], records[0]["image"])
        pool.reset([2], [1])
        np.testing.assert_array_equal(pool.step(FORWARD[None], [1])[0]["image"], before)
        assert pool.info["renderer"] == "software"


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
    done = subprocess.run(
        [sys.executable, "-m", "dreamer.run", "--task", "dmlab_collect", "--configs", "debug",
         "--logdir", str(tmp_path)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "No module named 'deepmind_lab'" in done.stderr and "build_pip_package" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_preset_follows_from_the_task():
    config = load_config(task="dmlab_rooms_collect_good_objects_train").flat()
    published = {
        "envs.action_repeat": 4, "reward.transform": "tanh", "discount.enabled": False,
        "loss.kl_scale": 0.1, "loss.free_nats": 3.0, "behavior.horizon": 10,
        "explore.kind": "epsilon", "explore.amount": 0.4, "explore.final": 0.1,
        "explore.over": 200_000, "explore.unit": "updates",
    }  # fmt: skip
    assert {key: config[key] for key in published} == published
    assert find_level("collect") == find_level("rooms_collect_good_objects_train")


# ----------------------------------------------- misuse that the stand-in detects

BUILDING = [
    (lambda m: m.Lab(3, []), TypeError, "argument 1 must be str, not int"),
    (lambda m: m.Lab("a\0b", []), ValueError, "embedded null character"),
    (lambda m: m.Lab(PATH, ("RGB",)), TypeError, "argument 2 must be list, not tuple"),
    (lambda m: m.Lab(PATH, [3]), TypeError, "bad argument type for built-in operation"),
    (lambda m: m.Lab(PATH, ["RGBX"]), ValueError, "Unknown observation 'RGBX'."),
    (lambda m: m.Lab(PATH, [], None), TypeError, "argument 3 must be dict, not None"),
    (lambda m: m.Lab(PATH, [], {"width": 64}), TypeError, "bad argument type"),
    (lambda m: m.Lab(PATH, [], {b"width": "64"}), TypeError, "bad argument type"),
    (lambda m: m.Lab(PATH, [], renderer=None), TypeError, "argument 4 must be str, not None"),
    (lambda m: m.Lab(PATH, [], renderer="egl"), RuntimeError, 'actual "egl"!'),
    (lambda m: m.Lab(PATH, [], temp_folder=None), TypeError, "argument 6 must be str, not None"),
    (lambda m: m.Lab(PATH, [], foo=1), TypeError, "'foo' is an invalid keyword argument"),
    (lambda m: m.Lab(PATH), TypeError, "missing required argument 'observations'"),
    (lambda m: m.Lab("rooms_watermaze", []), RuntimeError, "Level not found: Failed to open file"),
    (lambda m: m.Lab(PATH.replace("maze", "mace"), []), RuntimeError, "Level not found"),
    (lambda m: built(m, level="contributed/dmlab30/rooms_collect_good_objects_test"),
     RuntimeError, "hold-out"),
    (lambda m: built(m, width=65), RuntimeError, "positive multiple of 4. Actual 65"),
    (lambda m: built(m, height=0), RuntimeError, "positive multiple of 4. Actual 0"),
    (lambda m: built(m, width="64 "), RuntimeError, "Invalid int setting"),
    (lambda m: built(m, width=""), RuntimeError, "Invalid int setting"),
    (lambda m: built(m, mixerSeed=2**32), RuntimeError, "mixerSeed"),
    (lambda m: built(m, use_pbos=True), RuntimeError, "'true' or 'false'"),
    (lambda m: built(m, vmMode="fast"), RuntimeError, "vmMode"),
    (lambda m: built(m, logLevel="WARNING"), RuntimeError, 'Invalid setting: "logLevel"'),
    (lambda m: built(m, mode="test"), RuntimeError, 'Invalid setting: "mode" = "test"'),
    (lambda m: built(m, level="contributed/dmlab30/rooms_keys_doors_puzzle", mode="test"),
     RuntimeError, "Invalid setting"),
    (lambda m: type("Mine", (m.Lab,), {}), TypeError, "not an acceptable base type"),
    (lambda m: m.set_runfiles_path(Path("x")), TypeError, "argument 1 must be str"),
    (lambda m: m.set_runfiles_path("x" * 4096), RuntimeError, "directory name too long"),
]  # fmt: skip
USING = [
    (lambda e: e.step([0] * 7), TypeError, "must be numpy.ndarray, not list"),
    (lambda e: e.step(action(), num_steps=4.0), TypeError, "cannot be interpreted as an integer"),
    (lambda e: e.step(action(), None), TypeError, "cannot be interpreted as an integer"),
    (lambda e: e.step(action()[:6]), ValueError, r"must have shape \(7\)"),
    (lambda e: e.step(action()[None]), ValueError, r"must have shape \(7\)"),
    (lambda e: e.step(action().astype(np.int64)), ValueError, "must have dtype np.intc"),
    (lambda e: e.step(action().astype(np.uint32)), ValueError, "must have dtype np.intc"),
    (lambda e: e.step(action().astype(np.float32)), ValueError, "must have dtype np.intc"),
    (lambda e: e.step(np.zeros((7, 2), np.intc)[:, 0]), None, "read as other numbers"),
    (lambda e: e.step(action().astype(">i4")), None, "read as other numbers"),
    (lambda e: e.step(action(move=2)), None, "MOVE_BACK_FORWARD is 2"),
    (lambda e: e.step(action(look=-513)), None, "out of its bounds"),
    (lambda e: e.step(action(), num_steps=0), None, "must be above 0"),
    (lambda e: e.reset(seed=np.int64(3)), ValueError, "'seed' must be int or None, was 'numpy.int"),
    (lambda e: e.reset(seed=1.0), ValueError, "was 'float'"),
    (lambda e: e.reset(seed=2**31), None, "silently become another"),
    (lambda e: e.reset(seed=-1), None, "silently become another"),
    (lambda e: e.reset(seed=2**63), OverflowError, "too large"),
    (lambda e: e.reset(1.0, 1), TypeError, "cannot be interpreted as an integer"),
    (lambda e: e.reset(2**31, 1), OverflowError, "greater than maximum"),
    (lambda e: e.fps(), AttributeError, "fps"),
    (lambda e: setattr(e, "level", 1), AttributeError, "level"),
    (pickle.dumps, TypeError, "cannot pickle"),
    (copy.copy, TypeError, "cannot pickle"),
    (lambda e: e.read_property("nothing"), KeyError, "'nothing' not found."),
    (lambda e: e.read_property(3), TypeError, "must be str"),
    (lambda e: e.write_property("engine.fps", "30"), TypeError, "'engine.fps' not writable."),
    (lambda e: e.write_property("nothing", "30"), KeyError, "'nothing' not found."),
    (lambda e: e.properties("nothing"), KeyError, "not found"),
]  # fmt: skip


@pytest.mark.parametrize("call, error, words", BUILDING)
def test_building_it_wrongly(lab, call, error, words):
    with pytest.raises(error, match=words):
        call(lab)


@pytest.mark.parametrize("call, error, words", USING)
def test_using_it_wrongly(lab, call, error, words):
    with pytest.raises(error or lab.UndefinedError, match=words):
        call(started(lab))


def test_which_call_is_legal_when(lab):
    env = built(lab, ["VEL.ROT"])
    assert not env.is_running() and env.num_steps() == 0 and env.observation_spec()
    for call, words in [(lambda: env.step(action()), "in wrong status to advance"),
                        (env.observations, "observations"), (env.events, "events")]:  # fmt: skip
        with pytest.raises(RuntimeError, match=words):
            call()
    assert env.reset(seed=1) is True and env.is_running() and env.events() == []
    assert env.step(action(), num_steps=np.int64(7199)) == 0.0 and env.is_running()
    assert list(env.observations()) == ["VEL.ROT"]
    assert isinstance(env.step(action(), num_steps=5), float) and not env.is_running()
    assert env.num_steps() == 7204  # what was asked for, not what was done
    assert env.events() == [] and env.action_spec()
    for call in (lambda: env.step(action()), env.observations):
        with pytest.raises(RuntimeError, match="wrong status"):
            call()
    assert env.reset(seed=1) and env.num_steps() == 0
    assert env.close() is True and env.close() is False and not env.is_running()
    for call in (env.reset, env.observation_spec, env.action_spec, env.properties):
        with pytest.raises(lab.UndefinedError, match="freed memory"):
            call()
    with pytest.raises(RuntimeError):
        env.step(action())


def test_specs_hold_for_what_is_observed(lab):
    spec = built(lab).observation_spec()
    env = started(lab, observations=[entry["name"] for entry in spec], width=64, height=48)
    shown, again = env.observations(), env.observations()
    for entry in env.observation_spec():
        value = shown[entry["name"]]
        if entry["dtype"] is str:
            assert value == "" and entry["shape"] == ()
            continue
        assert (value.shape, value.dtype) == (entry["shape"], entry["dtype"])
        assert value.flags.owndata and value.flags.writeable and value.flags.c_contiguous
        assert value is not again[entry["name"]]
    np.testing.assert_array_equal(shown["RGB"].transpose(1, 2, 0), shown["RGB_INTERLEAVED"])
    np.testing.assert_array_equal(shown["BGR_INTERLEAVED"][..., ::-1], shown["RGB_INTERLEAVED"])
    assert spec[0] == {"name": "RGB_INTERLEAVED", "shape": (240, 320, 3), "dtype": np.uint8}


def test_settings_that_it_takes(lab):
    env = built(lab, width="0x40", height="0100", fps=30.5, logLevel="warn", use_pbos="true",
                episodeLengthSeconds=2, mixerSeed=1611489005, gadgetSelect="true")  # fmt: skip
    assert env.observation_spec()[0]["shape"] == (64, 64, 3)
    assert env.read_property("engine.fps") == "30" and len(env.action_spec()) == 8
    assert env.read_property("params.episodeLengthSeconds") == "2"
    assert lab.version() == "1.0" and lab.READ_WRITABLE == 3
    test_level = "contributed/dmlab30/rooms_collect_good_objects_test"
    assert built(lab, level=test_level, allowHoldOutLevels="true").reset(seed=0)
    named = lab.Lab("anything", [], {"levelName": "rooms_watermaze",
                                     "levelDirectory": "contributed/dmlab30"})  # fmt: skip
    assert named.reset(seed=True)


def test_a_level_cache_is_asked_at_a_reset(lab):
    level, calls = "contributed/dmlab30/explore_goal_locations_small", []

    class Cache:
        def fetch(self, key, path):
            calls.append("fetch")
            return False

        def write(self, key, path):
            calls.append("write")

    env = lab.Lab(level, [], level_cache=Cache())
    assert not calls and env.reset(seed=0) and calls == ["fetch", "write"]
    with pytest.raises(AttributeError, match="fetch"):
        lab.Lab(level, [], level_cache=object()).reset(seed=0)


def test_its_temporary_folder_is_removed(lab, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_TMPDIR", str(tmp_path))
    env = make_env("dmlab_keys")
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("dmlab_temp_folder_")
    env.close()
    assert not list(tmp_path.iterdir())
