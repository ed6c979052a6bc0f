"""10. SIGTERM leads to a checkpoint and status 143; a second one ends at once, losing nothing."""

import os
import signal
import time
from pathlib import Path

import pytest
import whole_runs
from fault_runs import Figure, check_episodes, each_agent, newest, run, run_of, words_for
from whole_runs import finish, wait_until


@each_agent
def test_a_second_signal_ends_at_once_and_loses_nothing(tmp_path: Path, figure: Figure, agent: str):
    """The second one comes while the checkpoint that follows the first is written."""
    harms = [(place, n, signal.SIGTERM, 0) for place, n in (("update", 8), ("checkpoints", 0))]
    status, _, errors = run(words_for(tmp_path, steps=100_000), *harms, agent=agent)
    assert status == -signal.SIGTERM, errors
    path = run_of(tmp_path)
    assert list(path.rglob(".*.tmp")), "it was not in the middle of the checkpoint"
    step, _, state = newest(path)
    assert step > 0
    assert {file.name for file in (path / "episodes").glob("*.npz")} >= set(state["members"])
    figure(
        f"a second SIGTERM in the middle of a checkpoint ends it at once: {check_episodes(path)} "
        f"episodes and the checkpoint before (step {step}) sound"
    )


@pytest.mark.faults
def test_while_xla_compiles(tmp_path: Path, figure: Figure):
    """XLA compiles for 20 s of processor time."""
    words = words_for(tmp_path, jit="on")
    status, output, errors = run(words, ("compile", 0, signal.SIGTERM, 2.0))
    assert status == 128 + signal.SIGTERM, errors
    assert "the run is saved" in output and "Traceback" not in errors
    _, arrays, state = newest(run_of(tmp_path))
    assert state["update"] == 0
    assert not any(array.any() for name, array in arrays.items() if name.endswith("_momentum"))
    status, output, errors = run(words)
    assert status == 0 and "resumed at step" in output, errors
    figure("SIGTERM while XLA compiles: status 143, saved as it was before the first update")


@pytest.mark.faults
@pytest.mark.parametrize("when", ["tracing", "pretraining"])
def test_at_full_size(tmp_path: Path, figure: Figure, when: str):
    """The published networks and batches on walker_walk; minutes and 8 GB on a CPU. Half a minute
    from the signal to the end is a promise, so here a time is asserted."""
    process = whole_runs.start(
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
