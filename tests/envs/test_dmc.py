from pathlib import Path

import numpy as np
import pytest
from pool_env import PoolEnv
from whole_runs import python

from dreamer.envs import dmc
from dreamer.envs.conformance import check_env
from dreamer.envs.make import make_env
from dreamer.envs.processes.pool import EnvPool
from dreamer.errors import UserError
from dreamer.tasks import TASK_LISTS

PAPER = [task.removeprefix("dmc_") for task in TASK_LISTS["dmc20"]]
FILE = Path(__file__).with_name("probe_envs.py")
STATE = {"image": False, "state": True}


def zeros(env):
    return np.zeros(env.act_space.shape, np.float32)


RENDERED = """
import sys
from dreamer.envs.conformance import check_env
from dreamer.envs.make import make_env
for task in sys.argv[1:]:
    print(task, flush=True)
    env = make_env(f"dmc_{task}", state=True, shadow_size=128)
    assert env.obs_space["image"].shape == (64, 64, 3) and env.action_repeat == 2
    assert env.info["camera"] == ("2" if task.startswith("quadruped") else "0")
    assert env.info["gl"] and env.info["renderer"]
    assert env.reset(0)["image"].std() > 1  # the image shows something
    check_env(env, steps=3)
"""


@pytest.mark.slow
def test_tasks_of_the_paper():
    """Construct, reset, step, render and conform, with images and states.

    All tasks share one process, because its start takes longer than a task. It must not be this
    one, which may hold TensorFlow.
    """
    done = python("-c", RENDERED, *PAPER)
    assert done.returncode == 0, done.stdout.splitlines()[-1] + done.stderr
    assert done.stdout.split() == PAPER


def test_every_task_of_the_suite_is_known():
    for domain, task in dmc._suite().ALL_TASKS:
        assert dmc.find_task(f"{domain}_{task}") == (domain, task)
    assert dmc.find_task("cup_catch") == ("ball_in_cup", "catch")
    assert dmc.find_task("humanoid_CMU_run") == ("humanoid_CMU", "run")
    with pytest.raises(UserError, match="did you mean 'dmc_cheetah_run'"):
        dmc.find_task("chetah_run")


@pytest.mark.slow
def test_every_task_of_the_suite_conforms():
    for domain, task in dmc._suite().ALL_TASKS:
        check_env(make_env(f"dmc_{domain}_{task}", **STATE), steps=10)


@pytest.mark.parametrize(
    "task", ["walker_walk", "quadruped_escape", "lqr_lqr_6_2", "stacker_stack_4"]
)
def test_state_alone_needs_no_opengl(task, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "off")
    env = PoolEnv(f"dmc_{task}", **STATE)
    assert "image" not in env.obs_space and "gl" not in env.info
    assert all(len(space.shape) == 1 for space in env.obs_space.values())
    names = env.info["actions"].split()
    assert len(names) == env.act_space.shape[0]
    assert task != "walker_walk" or names[:2] == ["right_hip", "right_knee"]
    check_env(env, steps=5)


def test_state_observations_are_dm_controls():
    env = make_env("dmc_walker_walk", **STATE, action_repeat=3)
    reference = dmc._suite().load("walker", "walk")
    reference.task.random.seed(np.random.SeedSequence(5).generate_state(8))
    expected = reference.reset()
    timestep = env.reset(5)
    rng = np.random.default_rng(0)
    for _ in range(5):
        for key, value in expected.observation.items():
            np.testing.assert_array_equal(timestep[key], np.float32(value).reshape(-1))
        action = rng.uniform(-1, 1, 6).astype(np.float32)
        timestep, reward = env.step(action), 0.0
        for _ in range(3):
            expected = reference.step(action)
            reward += expected.reward
        assert timestep["reward"] == np.float32(reward)


def test_actions_reach_the_actuators_own_range():
    env = make_env("dmc_quadruped_walk", **STATE)
    spec = env.env._env.action_spec()
    env.reset(0)
    for action, expected in ((-1, spec.minimum), (1, spec.maximum)):
        env.step(np.full(12, action, np.float32))
        np.testing.assert_allclose(env.env._env.physics.control(), expected, rtol=1e-6)


@pytest.mark.parametrize("task, settings, steps, frames", [
    ("pendulum_swingup", {"action_repeat": 2}, 500, 1000),  # dm_control's own limit, 1000 frames
    ("pendulum_swingup", {"action_repeat": 3}, 334, 1000),  # it ends the last repeat early
    ("pendulum_swingup", {"action_repeat": 2, "time_limit": 25}, 13, 25),
    ("pendulum_swingup", {"action_repeat": 2, "time_limit": 1100}, 550, 1100),
    ("lqr_lqr_2_1", {"action_repeat": 100}, 10, 1000),  # has no limit of its own
])  # fmt: skip
def test_time_limit_is_no_terminal(task, settings, steps, frames):
    env = make_env(f"dmc_{task}", **STATE, **settings)
    for _ in range(2):
        env.reset(0)
        timesteps = [env.step(zeros(env)) for _ in range(steps)]
        is_last = [bool(timestep["is_last"]) for timestep in timesteps]
        assert is_last == [False] * (steps - 1) + [True]
        assert not timesteps[-1]["is_terminal"] and timesteps[-1]["cont"] == 1
        inner = env.env._env
        assert inner.physics.time() == pytest.approx(frames * inner.control_timestep())
        with pytest.raises(RuntimeError, match="reset"):
            env.step(zeros(env))


def test_true_end_is_terminal():
    """lqr ends, with discount 0, once everything is at rest in the middle."""
    env = make_env("dmc_lqr_lqr_2_1", **STATE)
    env.reset(0)
    with env.env._env.physics.reset_context():
        env.env._env.physics.data.qpos[:] = 0
    timestep = env.step(zeros(env))
    assert timestep["is_last"] and timestep["is_terminal"] and timestep["cont"] == 0


def test_workers_share_the_model_and_seeds_tell_episodes_apart():
    with EnvPool("dmc_lqr_lqr_6_2", 2, 60.0, **STATE) as pool:
        for seeds, same in (([4, 4], True), ([4, 5], False), ([None, None], False)):
            first = pool.reset(seeds)
            steps = pool.step(np.full((2, 2), 0.5, np.float32))
            for one, other in (first, steps):
                assert np.array_equal(one["position"], other["position"]) == same


def test_only_the_last_frame_of_a_step_is_rendered():
    env = PoolEnv(f"{FILE}:counts_renders", action_repeat=4)
    drawn = [int(env.reset(0)["image"][0, 0, 0])]
    drawn += [int(env.step(zeros(env))["image"][0, 0, 0]) for _ in range(3)]
    env.close()
    assert drawn == [1, 2, 3, 4]


@pytest.mark.parametrize("domain", ["walker", "quadruped"])
def test_pixels_are_dm_controls(domain):
    """The small buffer and the single camera give the same pixels as `physics.render`."""
    with EnvPool(f"{FILE}:both_ways_{domain}") as pool:
        timesteps = pool.reset([0])
        for _ in range(3):
            timesteps += pool.step(np.full((1, *pool.act_space.shape), 0.5, np.float32))
    assert not any(timestep["image"].any() for timestep in timesteps)


def test_image_size_and_camera():
    with EnvPool("dmc_walker_walk", 1, 60.0, image_size=32, camera=1, shadow_size=256) as pool:
        assert pool.reset([0])[0]["image"].shape == (32, 32, 3)
        assert pool.info["camera"] == "1" and pool.info["shadow_size"] == "256"
    with pytest.raises(UserError, match="envs.camera is 7, but this task has cameras 0 to 1"):
        EnvPool("dmc_walker_walk", 1, 60.0, camera=7)


def test_invalid_physics_surfaces():
    env = make_env("dmc_cheetah_run", **STATE)
    from dm_control.rl.control import PhysicsError

    env.reset(0)
    env.env._env.physics.data.qvel[:] = 1e20
    with pytest.raises(PhysicsError):
        for _ in range(10):
            env.step(zeros(env))
