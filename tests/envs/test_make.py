"""Task names, their suites, and a suite that a program adds from its own folder."""

import numpy as np
import pytest
from pool_env import PoolEnv

from dreamer import tasks
from dreamer.config.config import load_config
from dreamer.envs.conformance import check_env
from dreamer.envs.make import make_env
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


SUITE = '''
import numpy as np
from dreamer.envs.spec import Space, one_hot_space
from dreamer.envs.wrappers import FrameEnv

LENGTHS = {"short": 3, "long": 30}

class Line(FrameEnv):
    """Walk to the end of a line."""

    def __init__(self, length, settings):
        super().__init__(settings, settings.time_limit)
        self.act_space = one_hot_space(2)
        self.obs_space = {"place": Space((1,), np.dtype(np.float32), 0, length)}
        self.info, self._length = {}, length

    def _start(self, seed):
        self._place = 0

    def _advance(self, action):
        self._place = max(self._place + (1 if action[1] else -1), 0)
        arrived = self._place == self._length
        return float(arrived), arrived, arrived

    def _observe(self):
        return {"place": np.array([self._place], np.float32)}

def make_line(name, settings):
    return Line(LENGTHS[name], settings)
'''
PRESET = """
envs: {action_repeat: 2, image: false, state: true, time_limit: 50}
behavior: {horizon: 7}
"""


@pytest.fixture
def line(tmp_path, monkeypatch):
    """A registered suite whose module and preset lie in a folder outside the package."""
    (tmp_path / "line_suite.py").write_text(SUITE)
    (tmp_path / "line.yaml").write_text(PRESET)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(tasks, "SUITES", dict(tasks.SUITES))
    suite = Suite("line_suite:make_line", "line_<length>", str(tmp_path / "line.yaml"))
    register_suite("line", suite)
    return suite


def test_a_suite_from_outside_the_package(line):
    config = load_config(task="line_short")
    assert config.behavior.horizon == 7 and config.envs.time_limit == 50
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
