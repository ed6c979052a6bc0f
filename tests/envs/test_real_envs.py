"""What users' environments return, in the forms that they return it."""

import collections
import decimal
import fractions
import json
import warnings
from pathlib import Path

import dm_env
import gymnasium
import numpy as np
import pytest
from dm_env import specs
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from pool_env import PoolEnv
from real_envs import Base

from dreamer.config.config import load_config
from dreamer.envs import dmc
from dreamer.envs.conformance import check_env
from dreamer.envs.dm_env import GymOfDmEnv
from dreamer.envs.gym import adapt_gym
from dreamer.envs.make import make_custom
from dreamer.envs.processes.pool import EnvPool
from dreamer.envs.spec import EnvSettings, Space
from dreamer.errors import ContractError, EnvError, UserError
from dreamer.training import collector as collector_module
from dreamer.training.build import make_pool
from dreamer.training.collector import Collector, random_policy

FILE = Path(__file__).with_name("real_envs.py")

LEFT = np.array([1, 0], np.float32)


def adapted(env, **settings):
    return adapt_gym(env, EnvSettings(**{"action_repeat": 1, "state": True, **settings}))


def stepping(**methods):
    """The first step of `Base` with these methods and attributes."""
    env = adapted(type("Changed", (Base,), methods)(), image=False)
    env.reset(0)
    return env.step(LEFT)


@pytest.mark.parametrize("one", [
    1, True, np.float16(1), np.array(1), np.array([1.0]), np.array([[1]]), [1.0], (np.int8(1),),
    np.bool_(True), np.longdouble(1), decimal.Decimal(1), fractions.Fraction(1),
])  # fmt: skip
def test_scalars_in_every_form(one):
    assert stepping(reward=lambda self: one)["reward"] == 1.0
    ends = stepping(step=lambda self, action: (self.observe(), one, one, [False], {}))
    assert ends["is_last"] and ends["is_terminal"]
    zero = [0] if isinstance(one, list | tuple) else 0 * one
    goes_on = stepping(step=lambda self, action: (self.observe(), one, zero, None, {}))
    assert not goes_on["is_last"]
    seen = stepping(observation_space=Discrete(2), observe=lambda self: one)
    np.testing.assert_array_equal(seen["observation"], [0, 1])


@pytest.mark.parametrize("wrong", [None, "1", np.ones(2), [], 1j, {}, [1, [2, 3]]])
def test_wrong_scalars_are_named(wrong):
    with pytest.raises(ContractError, match="reward: expected one number, got"):
        stepping(reward=lambda self: wrong)
    if wrong is not None:
        with pytest.raises(ContractError, match="truncated: expected one number, got"):
            stepping(step=lambda self, action: (self.observe(), 1.0, False, wrong, {}))


@pytest.mark.parametrize("seen, message", [
    (2, r"observation: expected a value of Discrete\(2\), got 2"),
    (-1, r"observation: expected a value of Discrete\(2\), got -1"),
])  # fmt: skip
def test_wrong_values_of_whole_numbers_are_named(seen, message):
    with pytest.raises(ContractError, match=message):
        stepping(observation_space=Discrete(2), observe=lambda self: seen)


def test_wrong_observations_are_named():
    with pytest.raises(ContractError, match="has a part 'b', but the observation lacks it"):
        stepping(
            observation_space=Dict(a=Discrete(2), b=Discrete(2)), observe=lambda self: {"a": 1}
        )
    with pytest.raises(ContractError, match=r"observation: expected \[3\] numbers, got None"):
        stepping(observe=lambda self: None)
    with pytest.raises(UserError, match="several environments in one"):
        adapted(gymnasium.make_vec("CartPole-v1", 2))


def observing(space, value, **settings):
    """The spaces, notes and first observations of `Base` with this observation."""
    env = adapted(type("Seen", (Base,), {"observation_space": space})(), **settings)
    env._env.observe = lambda: value
    timestep = env.reset(0)
    return env, {key: timestep[key] for key in env.obs_space}


@pytest.mark.parametrize("shape, axes", [
    ((4, 64, 64, 3), (1, 2, 0, 3)), ((4, 64, 64), (1, 2, 0)), ((64, 64, 4), (0, 1, 2)),
    ((2, 3, 64, 64), (2, 3, 0, 1)), ((64, 64, 3, 2), (0, 1, 2, 3)),
])  # fmt: skip
def test_stacked_frames_become_channels(shape, axes):
    value = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    env, seen = observing(Box(0, 255, shape, np.uint8), value)
    expected = value.transpose(axes).reshape(64, 64, -1)
    assert list(env.obs_space) == ["image"] and env.obs_space["image"].shape == expected.shape
    np.testing.assert_array_equal(seen["image"], expected)


def test_stacked_frames_are_resized_one_by_one():
    value = np.random.default_rng(0).integers(0, 256, (128, 128, 12), np.uint8)
    _, seen = observing(Box(0, 255, value.shape, np.uint8), value)
    mean = value.reshape(64, 2, 64, 2, 12).mean((1, 3))
    assert np.abs(seen["image"] - mean).max() <= 1  # Pillow rounds after each axis


@pytest.mark.parametrize("space, settings, note", [
    (Box(0, 255, (210, 160, 3), np.uint8), {}, "of 210x160 pixels is resized to 64x64, which cha"),
    (Box(0, 255, (96, 96), np.uint8), {}, "of 96x96 pixels is resized to 64x64"),
    (Box(0, 255, (50_000,), np.uint8), {}, "uint8 .50000., is taken for a vector of 50,000 numb"),
    (Box(0, 255, (8, 500), np.uint8), {}, "taken for a vector of 4,000 numbers, not for an image"),
    (Box(0, 255, (64, 64, 3), np.uint8), {"flatten": "observation"}, "a vector of 12,288 numbers"),
    (Box(0, 255, (64, 64, 3), np.uint8), {}, None), (Box(0, 255, (128,), np.uint8), {}, None),
])  # fmt: skip
def test_what_is_changed_or_taken_for_a_vector_is_said(space, settings, note):
    env, _ = observing(space, np.zeros(space.shape, space.dtype), **settings)
    if note is None:
        assert "notes" not in env.info
    else:
        assert note in env.info["notes"].replace("[", ".").replace("]", ".")


def test_images_of_numbers_are_vectors_if_asked_for():
    space, value = Box(0, 1, (20, 20, 3), np.float32), np.full((20, 20, 3), 0.25, np.float32)
    with pytest.raises(UserError, match="looks like images.* or set envs.flatten to the observat"):
        observing(space, value)
    _, seen = observing(space, value, flatten="observation", image=False)
    np.testing.assert_array_equal(seen["observation"], value.reshape(-1))
    both = Dict(grid=Box(0, 255, (20, 20, 3), np.uint8), camera=Box(0, 255, (64, 64, 3), np.uint8))
    env, _ = observing(both, both.sample(), flatten="gr.*")
    assert {k: s.shape for k, s in env.obs_space.items()} == {
        "grid": (1200,),
        "camera": (64, 64, 3),
    }
    with pytest.raises(UserError, match="envs.flatten 'x' matches none of grid, camera"):
        observing(both, both.sample(), flatten="x")


BoxSpace = collections.namedtuple("BoxSpace", "low high shape dtype")
DiscreteSpace = collections.namedtuple("DiscreteSpace", "n")
DictSpace = collections.namedtuple("DictSpace", "spaces")


@pytest.mark.parametrize("space, value, expected", [
    (DictSpace({"a": BoxSpace(0, 1, (2,), np.float32), "b": DiscreteSpace(3)}),
     {"a": [0.5, 0.25], "b": 1}, {"a": [0.5, 0.25], "b": [0, 1, 0]}),
    ({"a": Discrete(2)}, {"a": 1}, {"a": [0, 1]}),
    (Tuple([Discrete(2), Box(0, 1, ())]), (1, 0.5), {"0": [0, 1], "1": [0.5]}),
    (MultiDiscrete([2, 3]), [1, 2], {"observation": [0, 1, 0, 0, 1]}),
    (MultiBinary(3), np.array([0, 1, 1], np.int8), {"observation": [0, 1, 1]}),
])  # fmt: skip
def test_spaces_are_known_by_their_fields_and_of_all_common_kinds(space, value, expected):
    _, seen = observing(space, value, image=False)
    assert seen.keys() == expected.keys()
    for key, array in seen.items():
        np.testing.assert_array_equal(array, expected[key])
        assert array.dtype == np.float32


@pytest.mark.parametrize("space, parts, action, expected", [
    (MultiDiscrete([2, 3]), (2, 3), [0, 1, 0, 0, 1], [1, 2]),
    (MultiDiscrete([2, 3], start=[1, 0]), (2, 3), [0, 1, 1, 0, 0], [2, 0]),
    (MultiDiscrete([[2, 2], [2, 2]]), (2,) * 4, [0, 1, 1, 0, 1, 0, 0, 1], [[1, 0], [0, 1]]),
    (MultiBinary(2), (2, 2), [0, 1, 1, 0], [1, 0]),
    (DiscreteSpace(3), (), [0, 0, 1], 2), (MultiDiscrete([3]), (), [0, 0, 1], [2]),
])  # fmt: skip
def test_actions_of_several_whole_numbers(space, parts, action, expected):
    taken = []

    def step(self, action):
        taken.append(action)
        return Base.step(self, action)

    env = adapted(type("Acting", (Base,), {"action_space": space, "step": step})(), image=False)
    assert env.act_space.discrete and env.act_space.parts == parts
    assert Space.from_json(json.loads(json.dumps(env.act_space.to_json()))) == env.act_space
    env.reset(0)
    env.step(np.float32(action))
    np.testing.assert_array_equal(taken[0], expected)
    assert not hasattr(space, "contains") or space.contains(taken[0])
    draws = np.stack([env.act_space.sample(np.random.default_rng(i)) for i in range(50)])
    for part in np.split(draws, np.cumsum(parts)[:-1], axis=1) if parts else [draws]:
        assert np.all(part.sum(1) == 1) and np.all(part.any(0))
    check_env(env)


@pytest.mark.parametrize("space", [Dict(a=Discrete(2)), Tuple([Discrete(2), Box(0, 1)])])
def test_other_actions_are_refused_with_a_way_out(space):
    with pytest.raises(UserError, match="are not supported: .*Wrap .*gymnasium.ActionWrapper"):
        adapted(type("Acting", (Base,), {"action_space": space})())


def test_actions_of_a_space_that_is_a_named_tuple():
    kind = type("Named", (Base,), {"action_space": DiscreteSpace(2)})
    check_env(adapted(kind(), image=False))


@pytest.mark.parametrize("last, terminal", [
    ((True, False, {}), True), ((True, False, {"discount": 1.0}), False),
    ((True, False, {"discount": np.float32(0)}), True), ((True, {"discount": 1}), False),
    ((True, {"discount": 0.0}), True), ((True, {}), True), ((True, {"discount": "steep"}), True),
    ((True, False, {"TimeLimit.truncated": True}), False),
    ((True, {"TimeLimit.truncated": np.bool_(True)}), False),
])  # fmt: skip
def test_a_time_limit_that_only_info_tells_is_no_terminal(last, terminal):
    timestep = stepping(step=lambda self, action: (self.observe(), 1.0, *last))
    assert timestep["is_last"] and timestep["is_terminal"] == terminal


@pytest.mark.parametrize("name, line", [
    ("WrongReset", "environment 0 raised: NotImplementedError; its episode is dropped"),
    ("WrongReward", "environment 0 contract: reward: expected one number, got str"),
    ("WrongEnd", "environment 0 raised: KeyError: 'limit'; its episode is dropped"),
])  # fmt: skip
def test_a_mistake_of_the_code_ends_after_three_tries_at_the_same_step(name, line):
    """The first failure's last line is said at once."""
    settings = {"image": False, "state": True, "action_repeat": 1}
    with EnvPool(f"{FILE}:{name}", 1, 60.0, 16, **settings) as pool:
        collector = Collector(pool, lambda episode, number: None, 0)
        given_up = pytest.raises(EnvError, match="3 failures without an episode completed")
        with warnings.catch_warnings(record=True) as said, given_up:
            warnings.simplefilter("always")
            collector.collect(random_policy(pool.act_space, 0), 100)
    assert str(said[0].message).startswith(line) and len(said) == 2


def test_an_episode_without_end_is_said_and_cut_as_at_a_time_limit(monkeypatch):
    monkeypatch.setattr(collector_module, "LONG", 20)
    kept = []
    for limit, longest, length in ((0, 30, 30), (0, 12, 12), (40, 30, 41)):
        settings = {"image": False, "state": True, "action_repeat": 1, "time_limit": limit}
        with EnvPool(f"{FILE}:Endless", 1, 60.0, **settings) as pool:
            collector = Collector(pool, lambda episode, number: kept.append(episode), 0)
            collector.longest = longest
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                collector.collect(random_policy(pool.act_space, 0), 45 if longest == 30 else 15)
        assert len(kept[-1]["reward"]) == length
        assert kept[-1]["is_last"][-1] and kept[-1]["cont"].all()
        lines = [str(warning.message) for warning in said]
        assert len(lines) == (limit == 0) and all("set envs.time_limit" in line for line in lines)


class Countdown(dm_env.Environment):
    """Ends after three steps with a discount; observes specs of every kind."""

    def __init__(self, discount):
        self._discount = discount

    def observation_spec(self):
        return {
            "plain": specs.Array((2,), np.float64), "bound": specs.BoundedArray((), np.int8, 0, 9),
            "many": [specs.DiscreteArray(4)], "words": specs.StringArray(()),
        }  # fmt: skip

    def action_spec(self):
        return specs.DiscreteArray(3)

    def reset(self):
        self._left = 3
        return dm_env.restart(self._observe())

    def step(self, action):
        assert action in range(3)
        self._left -= 1
        kind = dm_env.StepType.LAST if self._left == 0 else dm_env.StepType.MID
        return dm_env.TimeStep(kind, np.array([2.0]), self._discount, self._observe())

    def _observe(self):
        return {"plain": np.ones(2), "bound": np.int8(7), "many": [2], "words": "left"}


@pytest.mark.parametrize("discount, terminal", [(1.0, False), (0.9, False), (0.0, True)])
def test_environments_of_dm_env(discount, terminal):
    settings = EnvSettings(action_repeat=1, state=True)
    env = adapt_gym(GymOfDmEnv(Countdown(discount), settings), settings)
    shapes = {key: space.shape for key, space in env.obs_space.items()}
    assert shapes == {"plain": (2,), "bound": (1,), "many/0": (4,)} and env.act_space.discrete
    assert env.info["left_out"] == "words" and "learns without images" in env.info["notes"]
    check_env(env)
    env.reset(0)
    last = [env.step(np.float32([0, 0, 1])) for _ in range(3)][-1]
    assert last["is_last"] and last["is_terminal"] == terminal and last["reward"] == 2
    np.testing.assert_array_equal(last["many/0"], [0, 0, 1, 0])


def test_makers_are_told_what_they_name():
    told, own = [], {"image": False, "state": True, "action_repeat": 1}
    for training in (True, False):
        with EnvPool(f"{FILE}:Told", 2, 60.0, training=training, seed=5, **own) as pool:
            told += [timestep["observation"].tolist() for timestep in pool.reset([0, 0])]
    config = load_config("debug", task=f"{FILE}:Told", seed=5, envs=own)
    with make_pool(config, 2, training=True, part=3) as pool:  # the last of four, as A3C's
        told += [timestep["observation"].tolist() for timestep in pool.reset([0, 0])]
    assert [rest for _, *rest in told] == [[0, 1], [1, 1], [0, 0], [1, 0], [6, 1], [7, 1]]
    assert len({seed for seed, *_ in told}) == 6


@pytest.mark.parametrize("name, image, drawn", [
    ("Template", True, True), ("Template", False, False), ("Human", True, False),
])  # fmt: skip
def test_classes_that_take_a_render_mode_are_drawn(name, image, drawn):
    env = make_custom(f"{FILE}:{name}", EnvSettings(image=image, state=True, action_repeat=1))
    assert ("image" in env.obs_space) == drawn
    assert env._env.render_mode == ("rgb_array" if drawn else None)
    check_env(env)


def test_a_process_is_renewed_after_so_many_episodes():
    settings = {"image": False, "state": True, "action_repeat": 1}
    with EnvPool(f"{FILE}:Numbered", 2, 60.0, renew_every=2, **settings) as pool:
        seen = [[float(t["observation"][0]) for t in pool.reset([0, 0])] for _ in range(5)]
        alive = [float(worker.pid) for worker in pool._workers]
    for numbers in zip(*seen, strict=True):
        assert numbers[0] == numbers[1] != numbers[2] == numbers[3] != numbers[4]
    assert [numbers[-1] for numbers in zip(*seen, strict=True)] == alive and pool.failures == 0


def test_environments_of_dm_control_are_drawn_seeded_and_limited():
    env = PoolEnv(f"{FILE}:suite_task", state=True, action_repeat=1)
    assert env.info["time_limit"] == "5" and env.obs_space["image"].shape == (64, 64, 3)
    assert env.reset(0)["image"].std() > 5
    steps = [env.step(np.zeros(1, np.float32)) for _ in range(5)]
    assert steps[-1]["is_last"] and not steps[-1]["is_terminal"]
    check_env(env)


def test_dm_controls_other_packages_are_told_how_they_are_made():
    with pytest.raises(UserError, match="not of dm_control.manipulation; write a function that"):
        dmc.find_task("manip_reach_site")


def test_a_rendered_image_that_is_resized_is_said_once():
    said = []
    with EnvPool(f"{FILE.with_name('gym_envs.py')}:Drift", 2, 60.0, state=True) as pool:
        pool.on_note = said.append
        for _ in range(2):
            pool.reset([0, 0])
    assert said == [
        "image 'image' of 96x128 pixels is resized to 64x64, which changes its proportions"
    ]
