"""10. SIGTERM leads to a checkpoint and status 143; a second one ends at once, losing nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_runs import newest, python, run_of, words_for
from whole_runs import finish, start, wait_until

from dreamer.data.episodes import EpisodeFile

# Sends itself SIGTERM and, while the checkpoint that follows is written, another one.
TWICE = """
import os, signal, sys
from dreamer.agent.agent import Agent
from dreamer.runs.checkpoints import Checkpoints
from dreamer.config.command_line import run_main
from dreamer.run import main

calls, train_step = iter(range(10**9)), Agent.train_step
def counted(self, *args):
    if next(calls) == 8:
        os.kill(os.getpid(), signal.SIGTERM)
    return train_step(self, *args)
Agent.train_step = counted
sync = os.fsync
def fsync(descriptor):
    name = os.readlink(f"/proc/self/fd/{descriptor}")
    if "/checkpoints/." in name and next(calls) > 8:
        os.kill(os.getpid(), signal.SIGTERM)
    sync(descriptor)
os.fsync = fsync
run_main(main)
"""


# Sends itself SIGTERM while XLA compiles, which it does for 20 s of processor time.
COMPILING = """
import os, signal, sys, threading
from dreamer.agent import agent
from dreamer.system import threads
from dreamer.config.command_line import run_main
from dreamer.run import main

def run(act):
    threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    threads.run_interruptibly(act)
agent.run_interruptibly = run
run_main(main)
"""


def test_a_second_signal_ends_at_once_and_loses_nothing(
    tmp_path: Path, figure: Callable[[str], None]
):
    words = words_for(tmp_path, steps=100_000)
    code = TWICE.replace("run_main(main)", f"sys.argv[1:] = {words!r}\nrun_main(main)")
    done = python(code)
    assert done.returncode == -signal.SIGTERM, done.stderr
    run = run_of(tmp_path)
    assert list(run.rglob(".*.tmp")), "it was not in the middle of the checkpoint"
    step, _, state = newest(run)
    assert step > 0
    paths = list((run / "episodes").glob("*.npz"))
    assert {path.name for path in paths} >= set(state["members"])
    for path in paths:
        file = EpisodeFile(path)
        file.check(file.keys)
    figure(
        f"a second SIGTERM in the middle of a checkpoint ends it at once: {len(paths)} episodes "
        f"and the checkpoint before (step {step}) sound"
    )


@pytest.mark.faults
def test_while_xla_compiles(tmp_path: Path, figure: Callable[[str], None]):
    words = words_for(tmp_path, jit="on")
    done = python(COMPILING.replace("run_main(main)", f"sys.argv[1:] = {words!r}\nrun_main(main)"))
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "the run is saved" in done.stdout and "Traceback" not in done.stderr
    _, arrays, state = newest(run_of(tmp_path))
    assert state["update"] == 0
    assert not any(array.any() for name, array in arrays.items() if name.endswith("_momentum"))
    status, output, errors = finish(start("dreamer.run", *words))
    assert status == 0 and "resumed at step" in output, errors
    figure("SIGTERM while XLA compiles: status 143, saved as it was before the first update")


@pytest.mark.faults
@pytest.mark.parametrize("when", ["tracing", "pretraining"])
def test_at_full_size(tmp_path: Path, figure: Callable[[str], None], when: str):
    """The published networks and batches on walker_walk; minutes and 8 GB on a CPU. Half a minute
    from the signal to the end is a promise, so here a time is asserted."""
    process = start(
        "dreamer.run", "--task", "dmc_walker_walk", "--logdir", tmp_path, "--log.terminal", "plain",
        stderr=None, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    wait_until(lambda: len(list(tmp_path.glob("*/*/*/episodes/*.npz"))) >= 5, process)
    if when == "pretraining":
        while "s an update" not in process.stdout.readline():
            assert process.poll() is None
    else:
        time.sleep(5)
    start_time = time.monotonic()
    process.send_signal(signal.SIGTERM)
    status, _, _ = finish(process)
    seconds = time.monotonic() - start_time
    assert status == 128 + signal.SIGTERM
    assert seconds < 30
    step, arrays, state = newest(run_of(tmp_path))
    size = sum(array.nbytes for array in arrays.values())
    figure(
        f"full size, SIGTERM while {when}: status 143 after {seconds:.1f} s with a checkpoint of "
        f"step {step}, update {state['update']} ({size / 1e6:.0f} MB)"
    )
