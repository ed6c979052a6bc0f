"""The real gym 0.26, which needs NumPy 1, in a virtual environment and processes of its own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import whole_runs
from pool_env import PoolEnv

from dreamer.envs.conformance import check_env
from dreamer.envs.processes.pool import EnvPool
from dreamer.errors import UserError

FILE = Path(__file__).with_name("old_gym.py")
PACKAGES = ("gym==0.26.2", "numpy==1.26.4", "pillow", "pygame")

# What gym itself says, with none of our code in the process.
LITERAL = """
import json, sys
sys.path.insert(0, sys.argv[1])
import old_gym
env = old_gym.cartpole()
obs, _ = env.reset(seed=int(sys.argv[2]))
steps = [[obs.tolist(), 0.0, False, False]]
while not steps[-1][2]:
    obs, reward, done, info = env.step(len(steps) % 2)
    steps.append([obs.tolist(), reward, done, info.get("TimeLimit.truncated", False)])
print(json.dumps(steps))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new virtual environment that holds old gym and no TensorFlow."""
    folder = tmp_path_factory.mktemp("old_gym")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=600)
    python = folder / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES],
        check=True, timeout=1800,
    )  # fmt: skip
    return python


def literal_cartpole(python: Path, seed: int) -> list:
    done = subprocess.run(
        [python, "-c", LITERAL, str(FILE.parent), str(seed)],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_old_environments_conform_also_those_of_the_installed_gym(python: Path):
    settings = {"action_repeat": 1, "state": True, "python": str(python)}
    check_env(PoolEnv(f"{FILE}:cartpole", **settings), steps=40)
    check_env(PoolEnv(f"{FILE}:dot", **settings), steps=40)
    check_env(env := PoolEnv("gym_CartPole-v1", **settings), steps=40)
    assert env.info["time_limit"] == "500" and "image" in env.obs_space
    with pytest.raises(UserError, match="did you mean 'gym_CartPole-v1'.*Gym says"):
        PoolEnv("gym_CartPol-v1", **settings)


@pytest.mark.slow
def test_four_values_are_told_apart(python: Path):
    """Ends by the time limit and by the pole, as gym itself says."""
    seed = 5
    small = int(np.random.SeedSequence(seed).generate_state(1)[0] >> 1)
    expected = literal_cartpole(python, small)
    with EnvPool(
        f"{FILE}:cartpole", action_repeat=1, image=False, state=True, python=str(python)
    ) as pool:
        timesteps = pool.reset([seed])
        while not timesteps[-1]["is_last"]:
            timesteps += pool.step(np.eye(2, dtype=np.float32)[[len(timesteps) % 2]])
        for timestep, (obs, reward, done, truncated) in zip(timesteps, expected, strict=True):
            np.testing.assert_array_equal(timestep["observation"], np.float32(obs))
            assert timestep["reward"] == reward and timestep["is_last"] == done
            assert timestep["is_terminal"] == (done and not truncated)
        assert not timesteps[-1]["is_terminal"]
        timestep = pool.reset([seed])[0]
        while not timestep["is_last"]:  # always to one side: the pole falls
            timestep = pool.step(np.eye(2, dtype=np.float32)[[0]])[0]
        assert timestep["is_terminal"]


@pytest.mark.slow
@pytest.mark.parametrize("function", ["cartpole", "dot"])
def test_the_main_job_trains_on_old_gym(python: Path, tmp_path: Path, function: str):
    command = whole_runs.start(
        "dreamer.run", "--task", f"{FILE}:{function}", "--envs.python", python, "--method", "old",
        "--configs", "debug", "--logdir", tmp_path, "--steps", "200",
    )  # fmt: skip
    status, output, errors = whole_runs.finish(command)
    assert status == 0, errors
    (run,) = tmp_path.glob("*/old/0")
    last = whole_runs.metrics_of(run)[-1]
    assert last["step"] >= 200 and last["updates"] > 0 and np.isfinite(last["model/model_loss"])


def test_another_interpreter_sees_none_of_our_packages(tmp_path: Path):
    """Here it is this one again, under another name, which starts without our module paths."""
    link = tmp_path / "bin" / "python"
    link.parent.mkdir()
    link.write_text(f'#!/bin/sh\nexport SEEN="$PYTHONPATH"\nexec {sys.executable} "$@"\n')
    link.chmod(0o755)
    (tmp_path / "env.py").write_text(
        "import os, pathlib\nimport gymnasium\ndef make():\n"
        f"    pathlib.Path({str(tmp_path / 'seen')!r}).write_text(os.environ['SEEN'])\n"
        "    return gymnasium.make('CartPole-v1')\n"
    )
    settings = {"action_repeat": 1, "image": False, "state": True}
    with EnvPool(f"{tmp_path / 'env.py'}:make", python=str(link), **settings) as pool:
        pool.reset([0])
        first, *others = (tmp_path / "seen").read_text().split(":")
        assert [path.name for path in Path(first).iterdir()] == ["dreamer"]
        assert not [path for path in others if "site-packages" in path]
    assert not Path(first).exists()


def test_an_interpreter_that_is_none(tmp_path: Path):
    with pytest.raises(UserError, match="envs.python is nowhere/python, which is no program"):
        EnvPool("gym_CartPole-v1", python="nowhere/python", image=False, state=True)
    for program in ("true", "echo"):  # end well, and do nothing of what a Python is told
        with pytest.raises(UserError, match=f"envs.python is {program}, .*it does not run Python"):
            EnvPool("gym_CartPole-v1", python=program, image=False, state=True)
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True, timeout=300)
    python = str(bare / "bin" / "python")
    with pytest.raises(UserError, match="cannot run environments .*No module named 'numpy'"):
        EnvPool("gym_CartPole-v1", python=python, image=False, state=True)
