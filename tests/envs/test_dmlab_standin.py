"""The stand-in for DeepMind Lab: it refuses what the real one refuses or leaves undefined."""

import numpy as np
import pytest

from dreamer.envs.make import make_env

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

    def refuses_to_run():
        assert not env.is_running()
        for call in (lambda: env.step(action()), env.observations):
            with pytest.raises(RuntimeError, match="wrong status"):
                call()

    refuses_to_run()
    assert env.num_steps() == 0 and env.reset(seed=1) is True and env.is_running()
    assert env.step(action(), num_steps=7199) == 0.0 and env.is_running()
    assert list(env.observations()) == ["VEL.ROT"]
    env.step(action(), num_steps=5)
    assert env.num_steps() == 7204  # frames asked for, not frames simulated
    refuses_to_run()
    assert env.reset(seed=1) and env.num_steps() == 0
    assert env.close() is True and env.close() is False
    refuses_to_run()
    with pytest.raises(lab.UndefinedError, match="freed memory"):
        env.reset()


def test_the_adapter_closes_it(lab):
    env = make_env("dmlab_keys")
    env.close()
    assert env._lab.close() is False
