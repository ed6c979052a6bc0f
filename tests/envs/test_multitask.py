"""Several tasks in one pool: names, shared spaces, the wrapper that fits a task to them."""

from pathlib import Path

import numpy as np
import pytest

from dreamer.config.config import load_config
from dreamer.envs.conformance import check_env
from dreamer.envs.make import make_env
from dreamer.envs.multitask import Padded, assign, shared_actions, shared_observations
from dreamer.envs.processes.pool import EnvError, EnvPool, EnvRestartWarning
from dreamer.envs.spec import Space, make_timestep
from dreamer.errors import UserError
from dreamer.tasks import split_tasks, suite_of

F32, U8 = np.dtype(np.float32), np.dtype(np.uint8)
IMAGE = Space((8, 8, 3), U8, 0, 255)
FILE = Path(__file__).with_name("probe_envs.py")
STATES = {"image": False, "state": True, "action_repeat": 2, "time_limit": 20}


class Echo:
    """Shows the action it was given; `actions` of it, one-hot or not."""

    def __init__(self, actions: int, discrete: bool, key: str = "echo"):
        low = 0.0 if discrete else -1.0
        self.act_space = Space((actions,), F32, low, 1.0, discrete)
        self.obs_space = {"image": IMAGE, key: Space((actions,), F32, low, 1.0)}
        self.action_repeat, self.info, self._key = 1, {}, key

    def reset(self, seed=None):
        self._left = 6
        return self._timestep(np.zeros(self.act_space.shape, F32), is_first=True)

    def step(self, action):
        self.act_space.check(action, "action")
        if not self._left:
            raise RuntimeError("over")
        self._left -= 1
        return self._timestep(action, 1.0, is_last=not self._left)

    def _timestep(self, action, *args, **flags):
        obs = {"image": np.full((8, 8, 3), 7, np.uint8), self._key: action.copy()}
        return make_timestep(obs, *args, **flags)

    def close(self):
        pass


def padded(env, *others, task=None):
    spaces = {str(i): e for i, e in enumerate((env, *others))}
    observed = shared_observations({name: e.obs_space for name, e in spaces.items()})
    return Padded(env, observed, shared_actions({n: e.act_space for n, e in spaces.items()}), task)


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("task", [None, (1, 3)])
@pytest.mark.parametrize("other", [Echo(5, True, "echo"), Echo(5, True, "other")])
def test_padding_conforms(discrete, task, other):
    other.act_space = Space((5,), F32, 0.0 if discrete else -1.0, 1.0, discrete)
    env = padded(Echo(2, discrete), other, task=task)
    assert env.act_space.shape == (5,)
    check_env(env, steps=10)


def test_continuous_actions_are_cut_and_vectors_filled_up():
    env = padded(Echo(2, False), Echo(4, False), task=(0, 2))
    env.reset(0)
    timestep = env.step(np.array([0.1, 0.2, 0.3, 0.4], np.float32))
    np.testing.assert_array_equal(timestep["echo"], np.array([0.1, 0.2, 0, 0], np.float32))
    assert timestep["task"].tolist() == [1, 0] and (timestep["image"] == 7).all()
    missing = padded(Echo(2, False), Echo(3, False, "other")).reset(0)
    assert missing["other"].tolist() == [0, 0, 0] and missing["echo"].shape == (2,)


def test_one_hot_actions_begin_again():
    env = padded(Echo(2, True), Echo(5, True))
    env.reset(0)
    chosen = [int(env.step(row)["echo"].argmax()) for row in np.eye(5, dtype=np.float32)]
    assert chosen == [0, 1, 0, 1, 0]


def test_spaces_that_cannot_be_shared():
    box, one_hot = Space((2,), F32, -1, 1), Space((3,), F32, 0, 1, discrete=True)
    with pytest.raises(UserError, match="different kinds .*a continuous, b one-hot"):
        shared_actions({"a": box, "b": one_hot})
    for other, words in [(Space((8, 9, 3), U8, 0, 255), r"uint8 \[8, 9, 3\]"), (None, "b none")]:
        spaces = {"a": {"image": IMAGE}, "b": {"image": other} if other else {"x": box}}
        with pytest.raises(UserError, match=rf"observation 'image' differs .*{words}"):
            shared_observations(spaces)
    with pytest.raises(UserError, match="have one of that name"):
        padded(Echo(2, False, "task"), task=(0, 1))
    assert shared_observations({"a": {"x": box}, "b": {"x": box}}) == {"x": box}


def test_names():
    assert split_tasks("a") == ["a"] and split_tasks("a, b,c") == ["a", "b", "c"]
    assert assign(["a", "b"], 4) == ["a", "b", "a", "b"]
    assert suite_of("dmc_walker_walk,dmc_walker_run") == "dmc"
    assert load_config(task="atari_pong,atari_boxing").envs.action_repeat == 4
    for call, words in [
        (lambda: split_tasks("a,,b"), "different names as in a,b,c"),
        (lambda: split_tasks("a,b,a"), "different names as in a,b,c"),
        (lambda: assign(["a", "b"], 3), "a multiple of 2"),
        (lambda: suite_of("dmc_walker_walk,atari_pong"), "of different suites"),
        (lambda: suite_of("dmc_walker_walk,walker_run"), "unknown suite in task 'walker_run'"),
        (lambda: make_env("dmc_walker_walk,dmc_walker_run"), "an environment has one"),
        (lambda: EnvPool("dmc_walker_walk,dmc_walker_run", 1), "1 environments for 2 tasks"),
        (lambda: EnvPool("gym_CartPole-v1,gym_Pendulum-v1", 2, **STATES), "different kinds"),
    ]:
        with pytest.raises(UserError, match=words):
            call()


def test_a_pool_of_two_tasks():
    tasks = ["dmc_cartpole_balance", "dmc_reacher_easy"]
    both = {**STATES, "tell_task": True, "restarts": 1}
    with EnvPool(",".join(tasks), 4, **both) as pool, EnvPool(tasks[0], 1, **STATES) as alone:
        assert pool.tasks == tasks * 2 and alone.tasks == tasks[:1]
        assert pool.act_space.shape == (2,) and alone.act_space.shape == (1,)
        shapes = {key: space.shape for key, space in pool.obs_space.items()}
        assert shapes == {"position": (3,), "velocity": (2,), "to_target": (2,), "task": (2,)}
        assert pool.info["time_limit"] == "20"
        first, second, third, _ = pool.reset([1, 1, 1, 2])
        (single,) = alone.reset([1])
        np.testing.assert_array_equal(first["position"], single["position"])
        assert first["to_target"].tolist() == [0, 0] and second["to_target"].any()
        assert [r["task"].tolist() for r in (first, second, third)] == [[1, 0], [0, 1], [1, 0]]
        np.testing.assert_array_equal(first["position"], third["position"])
        actions = np.array([[0.5, -0.9], [0.5, -0.9], [0.5, 0.7], [0, 0]], np.float32)
        timesteps, (single,) = pool.step(actions), alone.step(actions[:1, :1])
        for key in ("position", "velocity", "reward"):
            np.testing.assert_array_equal(timesteps[0][key], single[key])
            np.testing.assert_array_equal(timesteps[0][key], timesteps[2][key])  # the first's seed
        assert timesteps[1]["position"].shape == (3,) and timesteps[1]["position"][2] == 0
        pool._workers[1].kill()  # its successor plays the same task in the same spaces
        with pytest.warns(EnvRestartWarning, match="environment 1 died"):
            _, failed, *_ = pool.step(actions)
        assert isinstance(failed, EnvError)
        (again,) = pool.reset([1], [1])
        for key in second:
            np.testing.assert_array_equal(again[key], second[key])
