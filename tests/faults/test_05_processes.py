"""5. No process of an environment is left after any exit, and a signal to all ends no episode."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from counting_env import decode
from fault_runs import FAULTY, Figure, python
from whole_runs import is_gone, wait_until

from dreamer.envs.processes.pool import EnvPool
from dreamer.system import messages as wire

EXITS = """
import os, signal, sys, threading
import numpy
from dreamer.envs.processes.pool import EnvPool

def make():
    global pool
    pool = EnvPool(sys.argv[1], 2, 600.0, image=False, state=True, action_repeat=1)

# Of a thread that has ended, as workers are that train.overlap has replaced.
maker = threading.Thread(target=make)
maker.start()
maker.join()
pool.reset([0, 0])
workers = [worker.pid for worker in pool._workers]
children = [int(line) for pid in workers
            for line in open(f"/proc/{pid}/task/{pid}/children").read().split()]
print(*workers, *children, flush=True)
zeros = numpy.zeros((2, 2), numpy.float32)
if sys.argv[2] == "close":
    pool.close()
elif sys.argv[2] == "raise":
    raise RuntimeError("a mistake")
elif sys.argv[2] == "fail":
    pool.step(zeros), pool.step(zeros)
elif sys.argv[2] in ("SIGKILL", "SIGTERM", "SIGINT"):
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))
elif sys.argv[2] == "halted":
    for pid in [*workers, os.getpid()]:
        os.kill(pid, signal.SIGKILL if pid == os.getpid() else signal.SIGSTOP)
elif sys.argv[2] == "stepping":
    pool.step(zeros), print("hanging", flush=True), pool.step(zeros)
"""


@pytest.mark.parametrize(
    "how", ["close", "raise", "fail", "SIGTERM", "SIGINT", "SIGKILL", "stepping", "halted"]
)
def test_no_process_is_left_after_any_exit(how: str, figure: Figure):
    """Neither workers nor what their environments have started; also if a step hangs, or a kill
    finds the workers halted."""
    faults = "always" if how in ("fail", "stepping") else "0"
    kind = "hang" if how == "stepping" else "kill"
    with python(
        "-c", EXITS, FAULTY, how, stderr=subprocess.DEVNULL,
        DREAMER_TEST_CHILD="1", DREAMER_TEST_FAULTS=faults, DREAMER_TEST_KINDS=kind,
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 4
        if how == "stepping":
            assert parent.stdout.readline() == "hanging\n"
            os.kill(parent.pid, signal.SIGKILL)
    wait_until(lambda: all(map(is_gone, pids)))
    figure(f"exit by {how}: no process left")


HANGING = """
import time

def make():
    time.sleep(900)
"""


def test_a_worker_whose_pool_died_before_it_had_started_ends_in_whatever_hangs(tmp_path: Path):
    (tmp_path / "hanging.py").write_text(HANGING)
    dead = python("-c", "")
    dead.wait()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker = python(
            "-m", "dreamer.envs.processes.worker", str(theirs.fileno()), str(dead.pid),
            pass_fds=[theirs.fileno()], start_new_session=True,
        )  # fmt: skip
        wire.send(ours, {"kind": "make", "task": f"{tmp_path}/hanging.py:make", "settings": {}})
        assert worker.wait(300) != 0


LEARNERS = """
import os, sys
from baselines.a3c.rounds import LearnerProcess
from dreamer.config.config import load_config
quick = {"a3c.envs": 1, "envs.image": False, "envs.state": True}
config = load_config("debug", task=f"{sys.argv[1]}:make", agent="a3c", overrides=quick)
memory = os.memfd_create("unused")
learners = [LearnerProcess(config, number, memory, 0) for number in range(2)]
learners[0].receive()
"""


@pytest.mark.slow
def test_actor_learners_end_with_their_run_hanging_or_halted(tmp_path: Path, figure: Figure):
    """The processes of their environments end, too."""
    noted = "import os\nopen(__file__ + f'.{os.getpid()}.{os.getppid()}', 'x').close()\n"
    (tmp_path / "hanging.py").write_text(noted + HANGING)
    run = python("-c", LEARNERS, tmp_path / "hanging.py", stdout=None, stderr=None)
    pids: list[int] = []
    try:
        wait_until(lambda: len(list(tmp_path.glob("hanging.py.*"))) == 2, run)
        names = [path.name.split(".") for path in tmp_path.glob("hanging.py.*")]
        pids = [int(pid) for name in names for pid in name[2:]]
        assert len(set(pids)) == 4 and not any(map(is_gone, pids))
        os.kill(pids[1], signal.SIGSTOP)
        run.kill()
        run.wait()
        deadline = time.monotonic() + 30
        while not all(map(is_gone, pids)):
            assert time.monotonic() < deadline, "some live on"
            time.sleep(0.05)
    finally:
        run.kill()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    figure("a run of A3C killed, one actor-learner hanging, one halted: no process left")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_processes_leaves_episodes_under_way(number: signal.Signals):
    """As systemd and Slurm send it: the pool's process alone decides what follows."""
    with EnvPool(FAULTY, 1, 120.0, state=True) as pool:
        pool.reset([0])
        os.kill(pool._workers[0].pid, number)
        for _ in range(2):
            (timestep,) = pool.step(np.zeros((1, 2), np.float32))
        assert decode(timestep["image"])[:2] == (0, 2)
