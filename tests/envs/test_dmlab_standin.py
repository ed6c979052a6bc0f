"""The stand-in for DeepMind Lab: it refuses what the real one refuses or leaves undefined."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from lab_standin import PATH, action, built, started

from dreamer.envs.make import make_env

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
    (lambda m: built(m, fps="abc"), RuntimeError, "Failed to apply setting 'fps = abc'"),
    (lambda m: built(m, mixerSeed=2**32), RuntimeError, "mixerSeed"),
    (lambda m: built(m, use_pbos=True), RuntimeError, "'true' or 'false'"),
    (lambda m: built(m, vmMode="fast"), RuntimeError, "vmMode"),
    (lambda m: built(m, logLevel="WARNING"), RuntimeError, 'Invalid setting: "logLevel"'),
    (lambda m: built(m, mode="test"), RuntimeError, 'Invalid setting: "mode" = "test"'),
    (lambda m: built(m, level="contributed/dmlab30/rooms_keys_doors_puzzle", mode="test"),
     RuntimeError, "Invalid setting"),
    (lambda m: built(m, level="contributed/dmlab30/rooms_keys_doors_puzzle",
                     enableCameraMovement="true"), RuntimeError, "enableCameraMovement"),
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
    (lambda e: e.step(action(), num_steps=2**31), OverflowError, "does not fit"),
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


def test_which_call_is_legal_after_a_step_that_failed(lab, tmp_path, monkeypatch):
    switch = tmp_path / "fail"
    monkeypatch.setenv("DMLAB_STANDIN_FAILURE", str(switch))
    env = started(lab)
    env.step(action(), num_steps=3)
    switch.touch()
    with pytest.raises(ValueError, match='^Failed to advance environment ".*"$'):
        env.step(action())
    assert not env.is_running() and env.num_steps() == 3 and env.observation_spec()
    for call in (lambda: env.step(action()), env.observations, env.events):
        with pytest.raises(RuntimeError, match="wrong status"):
            call()
    assert env.reset(seed=1) is True and env.step(action()) == 0.0 and env.close() is True


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
