import sys
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

import gymnasium
import mujoco
import numpy as np
import pytest
from gym_envs import Drift, Mixed, Old
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from pool_env import PoolEnv

from dreamer.envs.conformance import check_env
from dreamer.envs.gym import adapt_gym
from dreamer.envs.gym_spaces import action_space, codec, scalar
from dreamer.envs.make import make_env
from dreamer.envs.spec import EnvSettings, Space
from dreamer.envs.wrappers import resize
from dreamer.errors import ContractError, UserError

FILE = Path(__file__).with_name("gym_envs.py")


def adapted(env, **settings):
    return adapt_gym(env, EnvSettings(**{"action_repeat": 1, **settings}))


FAST = np.array([1, 0], np.float32)  # 1 and 0 in Drift's own range


@pytest.mark.parametrize("make", [
    lambda: adapted(Drift(), image=True, state=True, action_repeat=2),
    lambda: adapted(Drift(), image=False, state=True, time_limit=7),
    lambda: adapted(Mixed(), image=True, state=True),
    lambda: adapted(Old(), image=True, state=True),
    lambda: make_env("gym_Drift-v0", image=True),
    lambda: make_env("gym_Drift-v0", time_limit=6),
    lambda: make_env("gym_CartPole-v1", image=False, state=True, action_repeat=1),
    lambda: make_env("gym_Pendulum-v1", image=False, state=True),
    lambda: PoolEnv(f"{FILE}:Drift", image=True, state=True, action_repeat=2),
    lambda: PoolEnv("gym_MountainCarContinuous-v0", image=False, state=True),
    lambda: PoolEnv("gym_MiniGrid-DoorKey-5x5-v0", image=True, state=True, action_repeat=1),
    lambda: PoolEnv("gym_VizdoomBasic-v1", image=True, state=True, action_repeat=1),
])  # fmt: skip
def test_conforms(make):
    check_env(make())


@pytest.mark.parametrize(("task", "names"), [
    ("MiniGrid-Empty-5x5-v0", "left right forward pickup drop toggle done"),
    ("CartPole-v1", None),
])  # fmt: skip
def test_actions_have_the_environments_names(task, names):
    env = make_env(f"gym_{task}", image=False, state=True, action_repeat=1)
    assert env.info.get("actions") == names
    env.close()


@pytest.mark.parametrize(("told", "names"), [
    (lambda: ["Full left", "UP"], "full_left up"), (lambda: ["one"], None),
    (lambda: ["", "up"], None), (lambda unknown: [], None), (3, None),
])  # fmt: skip
def test_names_of_actions_must_fit(told, names):
    inner = Drift()
    inner.get_action_meanings = told
    assert adapted(inner).info.get("actions") == names


def test_motors_have_their_own_names_or_their_joints():
    inner = Drift()
    inner.model = mujoco.MjModel.from_xml_string("""<mujoco><worldbody><body>
        <joint name="left knee"/><joint name="hip"/><geom size="1"/></body></worldbody>
        <actuator><motor joint="left knee"/><motor name="Hip motor" joint="hip"/></actuator>
        </mujoco>""")
    assert adapted(inner).info["actions"] == "left_knee hip_motor"


def test_image_is_rendered_once_a_step():
    inner = Drift()
    env = adapted(inner, action_repeat=2)
    assert env.obs_space == {"image": Space((64, 64, 3), np.uint8, 0, 255)}
    env.reset(0)
    timestep = env.step(FAST)
    assert inner.drawn == 2  # one for the reset, one for two frames
    assert set(timestep["image"][:32].ravel()) == {int(10 * inner._place[0])}
    assert not timestep["image"][32:].any()
    assert timestep["reward"] == 2


INTEGERS = Box(np.array([0, -3]), np.array([4, 3]), dtype=np.int64)


@pytest.mark.parametrize("space, pairs", [
    (Drift().action_space, [([-1, 0.5], [0, 1])]),
    (INTEGERS, [([-1, 1], [0, 3]), ([0.3, 0.6], [3, 2]), ([1, -0.1], [4, 0])]),
])  # fmt: skip
def test_actions_reach_the_environments_own_range(space, pairs):
    inner = Drift()
    inner.action_space = space
    env = adapted(inner, image=False, state=True)
    env.reset(0)
    for action, expected in pairs:
        env.step(np.float32(action))
        np.testing.assert_allclose(inner.actions[-1], expected)
        assert inner.actions[-1].dtype == space.dtype


def test_true_end_is_terminal():
    env = adapted(Drift(end=1.5), image=False, state=True, action_repeat=3)
    env.reset(0)
    timestep = env.step(FAST)
    assert timestep["is_last"] and timestep["is_terminal"] and timestep["cont"] == 0
    assert timestep["reward"] == 2  # the end cuts the repeat short
    with pytest.raises(RuntimeError, match="reset"):
        env.step(FAST)


def last_timestep(env):
    env.reset(0)
    for steps in range(1, 100):
        timestep = env.step(np.zeros(env.act_space.shape, np.float32))
        if timestep["is_last"]:
            return steps, timestep
    raise AssertionError("the episode did not end")


@pytest.mark.parametrize("env, expected", [
    (lambda: make_env("gym_Drift-v0", image=False, state=True, action_repeat=1), (5, False)),
    (lambda: make_env("gym_Drift-v0", image=False, state=True, action_repeat=1, time_limit=3),
     (3, False)),
    (lambda: make_env("gym_Drift-v0", image=False, state=True, action_repeat=1, time_limit=6),
     (6, False)),  # longer than the environment's own five
    (lambda: adapted(Old(), image=False, state=True), (6, True)),
    (lambda: adapted(Old(limit=4), image=False, state=True), (4, False)),
])  # fmt: skip
def test_limits_are_no_terminals(env, expected):
    steps, timestep = last_timestep(env())
    assert (steps, bool(timestep["is_terminal"])) == expected
    assert timestep["cont"] == (0 if expected[1] else 1)


def test_dict_of_images_vectors_and_discretes():
    env = adapted(Mixed(), image=True, state=True)
    assert set(env.obs_space) == {"camera", "depth", "arm/joints", "room"}
    env.reset(0)
    timestep = env.step(np.array([0, 1, 0], np.float32))
    assert timestep["reward"] == 4  # the second of the actions 3, 4, 5
    assert env.act_space.discrete
    np.testing.assert_array_equal(timestep["room"], [0, 1, 0, 0])
    assert np.all(timestep["camera"] == 50) and timestep["camera"].shape == (64, 64, 3)
    assert np.all(timestep["depth"] == 7) and timestep["depth"].shape == (64, 64, 3)
    assert timestep["arm/joints"].shape == (4,)
    assert list(adapted(Mixed(), image=True, state=False).obs_space) == ["camera", "depth"]
    assert list(adapted(Mixed(), image=False, state=True).obs_space) == ["arm/joints", "room"]


def test_grids_of_symbols_are_vectors_and_texts_are_left_out():
    """MiniGrid's observation: a 7x7x3 grid named image, a direction, and a mission in words."""
    env = make_env("gym_MiniGrid-Empty-5x5-v0", image=True, state=True, action_repeat=1)
    assert {key: space.shape for key, space in env.obs_space.items()} == {
        "direction": (4,), "image_vector": (147,), "image": (64, 64, 3),
    }  # fmt: skip
    assert env.info["left_out"] == "mission"
    timestep = env.reset(0)
    inner = env._env.unwrapped.gen_obs()
    np.testing.assert_array_equal(timestep["image_vector"], inner["image"].reshape(-1))
    assert timestep["direction"].argmax() == inner["direction"]
    np.testing.assert_array_equal(timestep["image"], resize(env._env.render(), 64))
    assert list(make_env("gym_MiniGrid-Empty-5x5-v0", image=True).obs_space) == ["image"]


def test_images_are_known_by_their_size():
    for shape, image in [((16, 16, 3), True), ((16, 20), True), ((15, 64, 3), False),
                         ((3, 64, 64), True), ((1, 16, 20), True), ((3, 64, 3), False)
                         ]:  # fmt: skip
        inner = Drift()
        inner.observation_space = Box(0, 255, shape, np.uint8)
        env = adapted(inner, image=True, state=True)
        expected = {"image"} if image else {"image", "observation"}
        assert set(env.obs_space) == expected, shape
    inner.observation_space = Box(0, 255, (3, 32, 48), np.uint8)
    shown = np.random.default_rng(0).integers(0, 256, (3, 32, 48), np.uint8)
    inner.reset = lambda **_: (shown, {})
    first = adapted(inner, image=True).reset(0)["image"]
    np.testing.assert_array_equal(first, resize(np.moveaxis(shown, 0, -1), 64))


@pytest.mark.parametrize("shape, dtype", [
    ((64, 64, 64), np.uint8), ((64, 64, 3), np.float32), ((1, 64, 64), np.float64),
    ((4, 64, 64, 3), np.float32),
])  # fmt: skip
def test_images_of_another_form_are_no_vectors(shape, dtype):
    inner = Drift()
    inner.observation_space = Box(0, 1, shape, dtype)
    with pytest.raises(UserError, match=r"'observation' looks like images, .*; expected uint8 \[h"):
        adapted(inner, image=True, state=True)
    assert list(adapted(inner, image=True, state=False).obs_space) == ["image"]  # rendered


def test_bytes_are_scaled_and_other_small_numbers_are_not():
    inner = Drift()
    for space, expected in [(Box(0, 255, (3,), np.uint8), [-0.5, 0.5, -0.3]),
                            (Box(0, 1, (3,), np.uint8), [0, 255, 51])]:  # fmt: skip
        inner.observation_space = space
        inner.reset = lambda **_: (np.uint8([0, 255, 51]), {})
        env = adapted(inner, image=False, state=True)
        np.testing.assert_allclose(env.reset(0)["observation"], expected, atol=1e-6)


def test_resize_averages():
    image = np.zeros((4, 4), np.uint8)
    image[:2, :2] = [[0, 100], [100, 200]]
    np.testing.assert_array_equal(resize(image, 2)[..., 0], [[100, 0], [0, 0]])


def test_unsupported_spaces_are_named():
    inner = Drift()
    inner.observation_space = gymnasium.spaces.Sequence(Box(0, 1))
    with pytest.raises(UserError, match="observations of the space Sequence.*or envs.state false"):
        adapted(inner, state=True)
    env = adapted(inner, image=True, state=False)  # the picture is enough
    assert list(env.obs_space) == ["image"] and env.info["left_out"] == "observation"
    env.reset(0)
    inner.observation_space = gymnasium.spaces.Dict({"reward": Box(0, 1)})
    with pytest.raises(UserError, match="named 'reward'"):
        adapted(inner, image=False, state=True)


def test_environment_that_cannot_render():
    inner = Drift()
    env = adapted(inner, image=True)
    inner.render = lambda: None
    with pytest.raises(UserError, match="renders none .render.. returned NoneType"):
        env.reset(0)


@pytest.mark.parametrize("frame", [
    np.full((64, 64, 4), 9, np.uint8), np.full((64, 64), 9, np.uint8),
    [np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 9, np.uint8)],
])  # fmt: skip
def test_rendered_images_lose_their_alpha(frame):
    """Grey ones get three channels; of several frames the last is taken."""
    inner = Drift()
    inner.render = lambda: frame
    assert np.all(adapted(inner, image=True).reset(0)["image"] == np.full((64, 64, 3), 9))


def test_seeds_reach_a_reset_that_names_no_arguments():
    class Passing(Drift):
        def reset(self, **kwargs):
            return super().reset(**kwargs)

    env = adapted(Passing(), image=False, state=True)
    first, other, again = (env.reset(seed)["observation"] for seed in (0, 1, 0))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_an_environment_that_changes_its_action_gets_the_same_one_again():
    class Changing(Drift):
        def step(self, action):
            result = super().step(action.copy())
            action *= 2
            return result

    inner = Changing()
    env = adapted(inner, image=False, state=True, action_repeat=3)
    env.reset(0)
    env.step(np.float32([-1, 0.5]))
    np.testing.assert_array_equal(inner.actions[-3:], [inner.actions[-1]] * 3)


@pytest.mark.parametrize("info", [None, {}, MappingProxyType({})])
@pytest.mark.parametrize("pair", [tuple, list])
def test_resets_of_wrappers_without_arguments_and_with_any_info(pair, info):
    class Plain(gymnasium.Wrapper):
        def reset(self):
            return pair([self.env.reset()[0], info])

    env = adapted(Plain(Drift()), image=False, state=True)
    assert env.reset(3)["observation"].shape == (2,)
    assert env.info["seeding"] == "none"


class Bfloat16(Decimal):
    """Stands in for a number of PyTorch's that NumPy does not know."""

    dtype = "torch.bfloat16"
    detach = cpu = lambda self: self

    def __array__(self, *_, **__):
        raise TypeError("Got unsupported ScalarType BFloat16")

    def float(self):
        return float(self)


@pytest.mark.parametrize("observed, expected", [
    (np.array([1, Decimal("0.5")], object), [1, 0.5]),  # a row of pandas
    ([True, 0.25], [1, 0.25]),
    ([1, [2, 3]], "parts of several shapes"),
    (np.array([1, "b"], object), "expected .2. numbers"),
    (None, "expected .2. numbers"),
])  # fmt: skip
def test_observations_of_odd_forms(observed, expected):
    inner = Drift()
    inner.reset = lambda seed=None: (observed, {})
    env = adapted(inner, image=False, state=True)
    if isinstance(expected, str):
        with pytest.raises(ContractError, match=f"observation: .*{expected}"):
            env.reset()
    else:
        np.testing.assert_array_equal(env.reset()["observation"], expected)


def test_numbers_of_pytorch_that_numpy_lacks():
    assert scalar(Bfloat16("1.5"), "reward") == 1.5


def test_a_masked_number_is_no_number():
    with pytest.raises(ContractError, match="reward: expected one number"):
        scalar(np.ma.masked, "reward")


def test_spaces_without_values_are_refused():
    nothing = Discrete(1)
    nothing.n = 0  # as spaces of other libraries may have
    for space in (nothing, MultiDiscrete([]), Box(0, 1, (0,))):
        with pytest.raises(UserError, match="expected at least one"):
            action_space(space)
    with pytest.raises(UserError, match="expected at least one"):
        codec("observation", nothing, 64, "(?!)")


def test_several_environments_in_one_are_refused():
    inner = Drift()
    inner.step_async = inner.step  # as Stable-Baselines3's have
    with pytest.raises(UserError, match="several environments in one"):
        adapted(inner, image=False, state=True)


@pytest.mark.parametrize("known", [True, False])
def test_environments_are_closed_once_if_they_can_be(known):
    closed = []
    inner = Drift()
    inner.close = (lambda: closed.append(1)) if known else None
    env = adapted(inner, image=False, state=True)
    env.close()
    env.close()
    assert len(closed) == known


@pytest.mark.parametrize("spaces", [
    {"a": Dict({"b": Box(0, 1, (1,))}), "a/b": Box(0, 1, (1,))},
    {"image": Box(0, 1, (1,)), "image_vector": Box(0, 1, (1,))},
])  # fmt: skip
def test_observations_of_one_name_are_refused(spaces):
    inner = Drift()
    inner.observation_space = Dict(spaces)
    with pytest.raises(UserError, match="two observations would be named '(a/b|image_vector)'"):
        adapted(inner, image=False, state=True)


class Closed:
    """Like old gym's wrappers: holds the environment inside; its render names no arguments."""

    def __init__(self, env):
        self.env = self.unwrapped = env

    def __getattr__(self, name):
        return getattr(self.env, name)

    def render(self):
        return self.env.render()


class Passing(Closed):
    def render(self, *args, **kwargs):
        return self.env.render(*args, **kwargs)


@pytest.mark.parametrize("wrapper", [Passing, Closed])
def test_old_environments_draw_within_wrappers(wrapper):
    assert adapted(wrapper(Old()), image=True).reset(0)["image"].shape == (64, 64, 3)


def test_a_package_missing_for_drawing_is_the_users_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    env = make_env("gym_CartPole-v1", image=True, state=True, action_repeat=1)
    with pytest.raises(UserError, match="cannot be drawn, .*pygame is not installed.*envs.image"):
        env.reset(0)


class FourValues(Drift):
    """Registered, and of Gymnasium's class, but its steps return four values."""

    def step(self, action):
        obs, reward, terminated, _, info = super().step(action)
        return obs, reward, terminated, info


def test_registered_environments_whose_steps_return_four_values():
    gymnasium.register("Four-v0", entry_point=FourValues, max_episode_steps=4)
    gymnasium.register("Old-v0", entry_point=Old)
    settings = {"image": False, "state": True, "action_repeat": 1}
    for limit, expected in [(0, 4), (3, 3), (6, 6)]:
        env = make_env("gym_Four-v0", time_limit=limit, **settings)
        assert env.info["time_limit"] == str(expected)
        steps, timestep = last_timestep(env)
        assert steps == expected and not timestep["is_terminal"]
    with pytest.raises(UserError, match=r"Old-v0 is no gymnasium.Env.* module:function"):
        make_env("gym_Old-v0", **settings)


class Bare(Drift):
    render = gymnasium.Env.render

    def __init__(self):
        super().__init__(render_mode=None)


def test_without_a_picture_the_agent_learns_from_the_rest_or_is_told_what_to_set():
    """Gymnasium's own render(), one that returns nothing, and one that is not implemented."""
    gymnasium.register("Plain-v0", entry_point=Mixed)
    gymnasium.register("Bare-v0", entry_point=Bare)
    env = make_env("gym_Plain-v0", image=True, state=True, time_limit=3)
    assert env.reset(0)["camera"].shape == (64, 64, 3)
    silent, absent = Drift(render_mode=None), Drift(render_mode=None)
    silent.render = lambda: None
    absent.render = lambda: exec("raise NotImplementedError")
    for make in (
        lambda **settings: make_env("gym_Bare-v0", **settings),
        lambda **settings: adapted(silent, **settings),
        lambda **settings: adapted(absent, **settings),
    ):
        with pytest.raises(UserError, match=r"render.* set envs.image to false and envs.state to"):
            make(image=True, state=False)
        env = make(image=True, state=True)
        assert list(env.obs_space) == ["observation"]
        assert "the agent learns without images, from observation" in env.info["notes"]
        assert env.reset(0)["observation"].shape == (2,)
    assert list(adapted(Drift(render_mode=None), image=True).obs_space) == ["image"]  # it draws


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "minigrid", None)
    gymnasium.register("NeedsMissing-v0", entry_point="a_package_nobody_has:Env")
    for name, words in [
        ("MiniGrid-Empty-8x8-v0", "needs a package .* not installed: pip install minigrid"),
        ("NeedsMissing-v0", "not installed: .*; try pip install a_package_nobody_has"),
        ("Ant-v2", "needs a package that is not installed: .* moved to the gymnasium-robotics"),
        ("nobody_has_it:Ant-v0", "unknown task .* Gymnasium says: No module named 'nobody_has_it'"),
    ]:
        with pytest.raises(UserError, match=words):
            make_env(f"gym_{name}")
