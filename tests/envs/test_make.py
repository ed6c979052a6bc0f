"""Task names, their suites, and a suite that a program adds from its own folder."""

from pathlib import Path

import numpy as np
import pytest
from pool_env import PoolEnv
from whole_runs import additions

from dreamer import tasks
from dreamer.config.config import load_config
from dreamer.envs.conformance import check_env
from dreamer.envs.make import make_env
from dreamer.envs.processes.pool import EnvPool
from dreamer.errors import UserError
from dreamer.tasks import Suite, register_suite, suite_of


@pytest.mark.parametrize("task, suite", [
    ("dmc_walker_walk", "dmc"), ("gym_package:Name-v0", "gym"), ("gym_ALE/Pong-v5", "gym"),
    ("package.module:make", "custom"), ("folder/gym_mine.py:make", "custom"),
    ("gym_mine.py:make", "custom"), ("dmc_mine.py:make", "custom"),
])  # fmt: skip
def test_suite_follows_from_the_name(task, suite):
    assert suite_of(task) == suite


@pytest.mark.parametrize("task", ["walker_walk", "dmc", "dmc_", "gym", "line_short", ""])
def test_names_of_no_suite(task):
    with pytest.raises(UserError, match="unknown suite"):
        suite_of(task)


@pytest.mark.parametrize(("task", "near"), [
    ("walker_walk", "'dmc_walker_walk'"), ("walker_wlk", "'dmc_walker_walk'"),
    ("Pong", "'atari_pong'"), ("CartPole-v1", "'gym_CartPole-v1'"),
    ("ALE/Pong-v5", "'gym_ALE/Pong-v5'"), ("dmx", "'dmc'"), ("bad.py", "'bad.py:function', "),
    ("tests/envs/old_gym.py", "'tests/envs/old_gym.py:"),
])  # fmt: skip
def test_a_name_of_no_suite_gets_the_near_right_one(task, near):
    with pytest.raises(UserError) as error:
        suite_of(task)
    assert f"task {task!r}; did you mean {near}" in str(error.value)


@pytest.mark.parametrize(("arguments", "message"), [
    ('{"size": 5}', ""),
    ("", "make needs arguments .missing a required argument: 'size'.*--envs.arguments"),
    ('{"size": 5, "colour": 1}', "'colour'"),
    ("size=5", "expected arguments by name as JSON"),
])  # fmt: skip
def test_arguments_of_ones_own_environment(tmp_path, arguments, message):
    (tmp_path / "sized.py").write_text(
        "import sys\n"
        f"sys.path.append({str(Path(__file__).parent)!r})\n"
        "from gym_envs import Drift\n"
        "def make(size, render_mode='rgb_array'):\n"
        "    return Drift(render_mode, end=size)\n"
    )
    task = f"{tmp_path}/sized.py:make"
    if message:
        with pytest.raises(UserError, match=message):
            make_env(task, arguments=arguments)
    else:
        assert make_env(task, arguments=arguments).env._env._end == 5


@pytest.mark.parametrize("task", ["dmc_walker_walk", "atari_pong", "dmlab_collect"])
@pytest.mark.parametrize("settings", [{"arguments": '{"size": 5}'}, {"flatten": "x"}])
def test_settings_that_a_suite_would_ignore_are_refused(task, settings):
    (key,) = settings
    for make in (make_env, EnvPool):
        with pytest.raises(UserError, match=f"envs.{key} is .*, but {task} takes none"):
            make(task, **settings)


def test_arguments_of_gymnasiums_own_environments():
    env = make_env("gym_Pendulum-v1", image=False, state=True, arguments='{"g": 1.5}')
    assert env.env._env.unwrapped.g == 1.5
    with pytest.raises(UserError, match="does not take envs.arguments .*'h'"):
        make_env("gym_Pendulum-v1", image=False, state=True, arguments='{"h": 1}')


@pytest.fixture
def line(tmp_path, monkeypatch):
    """CONTRIBUTING's suite, registered; its module and preset lie outside the package."""
    (tmp_path / "line_suite.py").write_text(additions()[3])
    (tmp_path / "line.yaml").write_text(additions()[4])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(tasks, "SUITES", dict(tasks.SUITES))
    suite = Suite("line_suite:make_line", "line_<length>", str(tmp_path / "line.yaml"))
    register_suite("line", suite)
    return suite


def test_a_suite_from_outside_the_package(line):
    config = load_config(task="line_short")
    assert config.discount.enabled and config.envs.time_limit == 50
    settings = {"image": False, "state": True, "action_repeat": 2, "time_limit": 50}
    check_env(make_env("line_long", **settings))
    check_env(PoolEnv("line_short", **settings))  # its worker knows the suite, too
    env = make_env("line_short", image=False, state=True, action_repeat=2)
    env.reset(0)
    right = np.array([0, 1], np.float32)
    assert not env.step(right)["is_last"]
    timestep = env.step(right)
    assert timestep["is_terminal"] and timestep["reward"] == 1 and timestep["place"] == 3


def test_registering_needs_a_free_name(line):
    register_suite("line", line)  # again, the same
    with pytest.raises(UserError, match="there is a suite 'dmc' already"):
        register_suite("dmc", line)
    for name in ("my_line", "a:b", "", "custom"):
        with pytest.raises(UserError, match="expected letters and digits"):
            register_suite(name, line)
    with pytest.raises(UserError, match="did you mean 'line'.*line_<length>"):
        suite_of("lime_short")
