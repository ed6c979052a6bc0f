"""The stand-in for DeepMind Lab: it refuses what the real one refuses or leaves undefined."""

import numpy as np
import pytest

from dreamer.envs.make import make_env

PATH = "contributed/dmlab30/rooms_watermaze"
BUILDING = [
    (lambda m: m.Lab(3, []), TypeError, "argument 1 must be str, not int"),
    (lambda m: m.Lab("a\0b", []), ValueError, "embedded null character"),
    (lambda m: m.Lab(PATH, ("RGB",)), TypeError, "argument 2 must be list, not tuple"),
    (lambda m: m.Lab(PATH, [3]), TypeError, "bad argument type for built-in operation"),
    (lambda m: m.Lab(PATH, ["RGBX"]), ValueError, "Unknown observation 'RGBX'."),
    (lambda m: m.Lab(PATH, [], []), TypeError, "argument 3 must be dict, not list"),
    (lambda m: m.Lab(PATH, [], {"width": 64}), TypeError, "bad argument type"),
    (lambda m: m.Lab(PATH, [], {b"width": "64"}), TypeError, "bad argument type"),
    (lambda m: m.Lab(PATH, [], renderer=None), TypeError, "argument 4 must be str, not None"),
    (lambda m: m.Lab(PATH, [], renderer="egl"), RuntimeError, 'actual "egl"!'),
    (lambda m: m.Lab("rooms_watermaze", []), RuntimeError, "Level not found: Failed to open file"),
    (lambda m: m.Lab(PATH.replace("maze", "mace"), []), RuntimeError, "Level not found"),
    (lambda m: built(m, width=65), RuntimeError, "positive multiple of 4. Actual 65"),
    (lambda m: built(m, height=0), RuntimeError, "positive multiple of 4. Actual 0"),
    (lambda m: built(m, width="64 "), RuntimeError, "Invalid int setting"),
    (lambda m: built(m, gpuDeviceIndex=""), RuntimeError, "Invalid int setting"),
    (lambda m: built(m, logLevel="WARNING"), RuntimeError, 'Invalid setting: "logLevel"'),
    (lambda m: built(m, fps=30), None, "no setting 'fps'"),
    (lambda m: type("Mine", (m.Lab,), {}), TypeError, "not an acceptable base type"),
]  # fmt: skip
USING = [
    (lambda e: e.step([0] * 7), TypeError, "must be ndarray, not list"),
    (lambda e: e.step(action(), num_steps=4.0), TypeError, "cannot be interpreted as an integer"),
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
]  # fmt: skip


def built(lab, observations=("RGB_INTERLEAVED",), **config):
    return lab.Lab(PATH, list(observations), config={key: str(v) for key, v in config.items()})


def action(**values):
    names = ["look", "up", "strafe", "move", "fire", "jump", "crouch"]
    return np.array([values.get(name, 0) for name in names], np.intc)


@pytest.mark.parametrize("call, error, words", BUILDING)
def test_building_it_wrongly(lab, call, error, words):
    with pytest.raises(error or lab.UndefinedError, match=words):
        call(lab)


@pytest.mark.parametrize("call, error, words", USING)
def test_using_it_wrongly(lab, call, error, words):
    env = built(lab)
    env.reset(seed=1)
    with pytest.raises(error or lab.UndefinedError, match=words):
        call(env)


def test_which_call_is_legal_when(lab, tmp_path, monkeypatch):
    monkeypatch.setenv("DMLAB_STANDIN_FAILURE", str(tmp_path / "fail"))
    env = built(lab, ["VEL.ROT"])

    def refuses_to_run():
        assert not env.is_running() and env.observation_spec() and env.action_spec()
        for call in (lambda: env.step(action()), env.observations):
            with pytest.raises(RuntimeError, match="wrong status"):
                call()

    refuses_to_run()
    assert env.num_steps() == 0 and env.reset(seed=1) is True and env.is_running()
    assert env.step(action(), num_steps=np.int64(7199)) == 0.0 and env.is_running()
    assert list(env.observations()) == ["VEL.ROT"]
    assert isinstance(env.step(action(), num_steps=5), float)
    assert env.num_steps() == 7204  # frames asked for, not frames simulated
    refuses_to_run()
    assert env.reset(seed=1) and env.num_steps() == 0
    (tmp_path / "fail").touch()
    with pytest.raises(ValueError, match='^Failed to advance environment ".*"$'):
        env.step(action())
    refuses_to_run()
    assert env.reset(seed=1) and env.step(action()) == 0.0
    assert env.close() is True and env.close() is False and not env.is_running()
    for call in (env.reset, env.observation_spec, env.action_spec):
        with pytest.raises(lab.UndefinedError, match="freed memory"):
            call()
    with pytest.raises(RuntimeError):
        env.step(action())


def test_observations_keep_their_spec(lab):
    spec = built(lab).observation_spec()
    assert spec[0] == {"name": "RGB_INTERLEAVED", "shape": (240, 320, 3), "dtype": np.uint8}
    env = built(lab, [entry["name"] for entry in spec], width="0x40", height="060", logLevel="warn")
    env.reset(seed=1)
    shown, again = env.observations(), env.observations()
    assert shown["RGB_INTERLEAVED"].shape == (48, 64, 3)
    for entry in env.observation_spec():
        value = shown[entry["name"]]
        if entry["dtype"] is str:
            assert value == "" and entry["shape"] == ()
            continue
        assert (value.shape, value.dtype) == (entry["shape"], entry["dtype"])
        assert value.flags.owndata and value.flags.writeable and value.flags.c_contiguous
        assert value is not again[entry["name"]]


def test_its_temporary_folder_is_removed(lab, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_TMPDIR", str(tmp_path))
    env = make_env("dmlab_keys")
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("dmlab_temp_folder_")
    env.close()
    assert not list(tmp_path.iterdir())
