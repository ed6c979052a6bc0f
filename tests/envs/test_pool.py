import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from pool_env import PoolEnv
from whole_runs import ROOT, python

from dreamer.envs.conformance import check_env
from dreamer.envs.processes.pool import EnvError, EnvPool
from dreamer.errors import UserError

FILE = Path(__file__).with_name("probe_envs.py")
PLAIN = {"image": False, "state": True, "action_repeat": 1}  # needs no OpenGL


def open_pool(function: str, num_envs: int = 1, timeout: float = 60.0, **settings) -> EnvPool:
    both = {**PLAIN, "image": True}  # what is hidden is not checked
    return EnvPool(f"{FILE}:{function}", num_envs, timeout, **{**both, **settings})


def test_workers_conform():
    check_env(PoolEnv(f"{FILE}:Counting", **PLAIN))


def test_timesteps_line_up_across_workers_and_resets():
    seeds, rng = [3, 4, 5], np.random.default_rng(0)
    with open_pool("Counting", num_envs=3) as pool:
        for _ in range(2):
            timesteps = pool.reset(seeds)
            lengths = [int(timestep["length"][0]) for timestep in timesteps]
            running = [0, 1, 2]
            for step in range(1, max(lengths) + 1):
                actions = rng.uniform(-1, 1, (len(running), 2)).astype(np.float32)
                for i, action, timestep in zip(
                    running, actions, pool.step(actions, running), strict=True
                ):
                    assert np.all(timestep["image"] == step) and timestep["reward"] == step
                    np.testing.assert_allclose(timestep["echo"], action, rtol=1e-6)
                    assert timestep["is_last"] == timestep["is_terminal"] == (step == lengths[i])
                running = [i for i in running if step < lengths[i]]
        assert len(set(lengths)) > 1
        (timestep,) = pool.reset([9], [1])
        assert timestep["is_first"] and np.all(timestep["image"] == 0)


def test_workers_have_no_tensorflow_and_one_thread_and_end_with_the_pool():
    with open_pool("Counting", num_envs=2) as pool:
        processes = list(pool._workers)
        assert pool.info["tensorflow"] == "False"
        assert pool.info["openmp"] == os.environ.get("OMP_NUM_THREADS", "1")
        assert int(pool.info["pid"]) != os.getpid()
        with pytest.raises(ValueError, match="expected 2 rows, got 1"):
            pool.reset([0])
    pool.close()  # again
    assert [process.poll() for process in processes] == [0, 0]


@pytest.mark.parametrize("fault, kind, message", [
    ("raise", "raised", "ZeroDivisionError: physics went wrong"),
    ("quit", "raised", r"raised: SystemExit\(0\)\nTraceback(?s:.)*probe_envs.py"),
    ("exit", "died", "exit status 3\nthe last words"),
    ("kill", "died", "killed by SIGKILL"),
    ("hang", "timed out", "no reply within 5 s"),
    ("shape", "contract", r"image: expected shape \(8, 8, 3\), got \(4, 8, 3\)"),
    ("dtype", "contract", "image: expected dtype uint8, got float32"),
    ("nan", "contract", "echo: not finite"),
    ("inf", "contract", "reward: not finite"),
    ("keys", "contract", "unexpected keys"),
])  # fmt: skip
def test_faults_are_told_apart(monkeypatch, fault, kind, message):
    monkeypatch.setenv("DREAMER_TEST_FAULT", fault)
    with open_pool("Misbehaving", 2, 5.0 if fault == "hang" else 60.0) as pool:
        processes = list(pool._workers)
        pool.reset([0, 0])
        pool.step(np.zeros((2, 2), np.float32))
        with pytest.raises(EnvError, match=message) as caught:
            pool.step(np.zeros((2, 2), np.float32))
        assert (caught.value.index, caught.value.kind) == (0, kind)
        assert all(process.poll() is not None for process in processes)
        with pytest.raises(RuntimeError, match="closed"):
            pool.reset([0, 0])


def test_output_of_the_simulator_does_no_harm():
    with open_pool("Chatty") as pool:
        for seed in range(20):
            pool.reset([seed])
            for _ in range(5):
                pool.step(np.zeros((1, 2), np.float32))
        assert os.fstat(pool._workers[0]._log.fileno()).st_size < 2 << 20


@pytest.mark.parametrize("task, message", [
    ("dmx_walker_walk", "unknown suite in task 'dmx_walker_walk'; did you mean 'dmc_walker_walk'"),
    ("dmc_walker_wlak", "unknown task 'dmc_walker_wlak'; did you mean 'dmc_walker_walk'"),
    ("gym_CartPol-v1", "unknown task 'gym_CartPol-v1'; did you mean 'gym_CartPole-v1'"),
    ("nowhere_to_be_found:make", "no module 'nowhere_to_be_found'"),
    ("nowhere.py:make", "no file nowhere.py"),
    (f"{FILE}:Countin", "no function 'Countin'; did you mean 'Counting'"),
    (f"{FILE}:not_an_env", "returned a str; expected a Gymnasium or dm_env environment"),
])  # fmt: skip
def test_users_mistakes_come_back_as_such(task, message):
    with pytest.raises(UserError) as caught:
        EnvPool(task, 1, 60.0, **PLAIN)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_settings():
    with pytest.raises(UserError, match="envs.num_envs is 0"):
        open_pool("Counting", num_envs=0)
    with pytest.raises(UserError, match="envs.action_repeat is -1, expected at least 1"):
        open_pool("Counting", action_repeat=-1)


def test_time_limit_and_repeat_of_a_users_environment():
    with open_pool("counting_time_limit", action_repeat=2, time_limit=4) as pool:
        assert pool.action_repeat == 2
        pool.reset([0])
        assert not pool.step(np.zeros((1, 2), np.float32))[0]["is_last"]
        (timestep,) = pool.step(np.zeros((1, 2), np.float32))
        assert timestep["is_last"] and not timestep["is_terminal"] and timestep["reward"] == 3 + 4


def run_script(folder: Path, text: str) -> subprocess.CompletedProcess:
    (folder / "main.py").write_text(textwrap.dedent(text))
    return python("main.py", cwd=folder)


USE = """
    import numpy
    from dreamer.envs.processes.pool import EnvPool
    with EnvPool("{task}", 1, 60.0, image=False, state=True, action_repeat=1) as pool:
        pool.reset([0])
        print("reward", float(pool.step(numpy.zeros((1, 2)))[0]["reward"]))
"""


@pytest.mark.parametrize("task", ["mine:make", "mine.py:make"])
def test_any_script_without_a_guard(tmp_path, task):
    (tmp_path / "mine.py").write_text(FILE.read_text() + "\nmake = Counting\n")
    done = run_script(tmp_path, USE.format(task=task))
    assert done.stdout == "reward 1.0\n", done.stderr


def test_script_that_is_its_own_environment_file(tmp_path):
    use = textwrap.dedent(USE).format(task="main.py:Counting")
    done = run_script(tmp_path, FILE.read_text() + use)
    assert "starts environments itself" in done.stderr
    assert "in a file of its own" in done.stderr


def test_environment_that_imports_tensorflow(tmp_path):
    (tmp_path / "mine.py").write_text("import tensorflow\ndef make(): pass\n")
    done = run_script(tmp_path, USE.format(task="mine.py:make"))
    assert "mine.py, line 1, imports TensorFlow" in done.stderr


PAUSED = """
    import numpy
    from dreamer.envs.processes.pool import EnvPool
    with EnvPool("{file}:Chatty", 1, 5.0, image=False, state=True, action_repeat=1) as pool:
        print(pool._workers[0].pid, flush=True)
        pool.reset([0])
        print("stepping", flush=True)
        pool.step(numpy.zeros((1, 2)))
        print("stepped", flush=True)
"""


def test_being_paused_is_no_timeout(tmp_path):
    """Parent and worker stop in the middle of a step, for longer than the timeout."""
    script = textwrap.dedent(PAUSED.format(file=FILE))
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DREAMER_TEST_PAUSE": "1"},
    ) as parent:  # fmt: skip
        pids = [int(parent.stdout.readline()), parent.pid]
        parent.stdout.readline()
        for signum, pause in ((signal.SIGSTOP, 6.0), (signal.SIGCONT, 0.0)):
            for pid in pids:
                os.kill(pid, signum)
            time.sleep(pause)
        assert parent.stdout.read() == "stepped\n"


def test_waiting_for_a_worker_can_be_broken_off(monkeypatch):
    monkeypatch.setenv("DREAMER_TEST_FAULT", "hang")
    waited = []

    def on_wait(seconds):
        waited.append(seconds)
        if seconds >= 2:
            raise KeyboardInterrupt

    with open_pool("Misbehaving", timeout=600.0) as pool:
        process = pool._workers[0]
        pool.reset([0])
        pool.step(np.zeros((1, 2), np.float32))
        pool.on_wait = on_wait
        with pytest.raises(KeyboardInterrupt):
            pool.step(np.zeros((1, 2), np.float32))
        assert waited[-2:] == [1.0, 2.0] and process.poll() is not None
