"""2. Exact resume: whatever stops a deterministic run, it ends as if nothing had."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import whole_runs
from fault_runs import (
    assert_same_arrays,
    config_for,
    episodes_of,
    newest,
    python,
    run_of,
    without,
    words_for,
)
from whole_runs import finish, metrics_of, start, wait_until

from dreamer.data.replay import Replay

# Each line of the script's arguments is "<logdir> <fault> <at>"; the faults are real: a signal
# that the process sends itself before its nth episode is stored, policy call, update or reset of
# environments, and unless it is SIGKILL its children too, as systemd and Slurm do.
SCRIPT = """
import os, signal, sys
from fault_runs import config_for
from dreamer import train
from dreamer.agent.agent import Agent
from dreamer.envs.processes.pool import EnvPool
from dreamer.training.interrupts import StopRequested
from dreamer.data.replay import Replay
from ray_helpers import descendants

def signal_before(cls, name, at, number):
    original, calls = getattr(cls, name), iter(range(10**9))
    def method(*args, **kwargs):
        if next(calls) == at:
            for pid in descendants(os.getpid()) if number != signal.SIGKILL else ():
                os.kill(pid, number)
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)
    setattr(cls, name, method)
    return lambda: setattr(cls, name, original)

PLACES = {
    "episode": (Replay, "write"), "policy": (Agent, "policy"), "update": (Agent, "train_step"),
    "reset": (EnvPool, "try_reset"),
}
for line in sys.argv[1:]:
    logdir, place, at, name = line.split()
    undo = signal_before(*PLACES[place], int(at), getattr(signal, name)) if place in PLACES else id
    try:
        train(config_for(logdir, deterministic=True, steps=300))
    except StopRequested as stop:
        print(stop, flush=True)
    undo(0) if undo is id else undo()
print("done", flush=True)
"""
CLOCKS = ("wall_time",)


def assert_same_run(ours: Path, theirs: Path) -> int:
    """Checks that two runs are the same but for their clocks; returns the number of arrays."""
    (step, arrays, state), (other_step, other_arrays, other_state) = newest(ours), newest(theirs)
    assert_same_arrays(arrays, other_arrays)
    assert_same_members(state.pop("members"), other_state.pop("members"))
    assert step == other_step
    assert without(state, CLOCKS) == without(other_state, CLOCKS)
    assert episodes_of(ours) == episodes_of(theirs)
    return len(arrays)


def assert_same_members(ours: list[str], theirs: list[str]) -> None:
    """The same ids and lengths; the times in the names differ."""
    assert [n.split("-", 1)[1] for n in ours] == [n.split("-", 1)[1] for n in theirs]


def batch_after(logdir: Path) -> dict[str, np.ndarray]:
    """The batch that the run would draw next."""
    from counting_env import CountingEnv

    config = config_for(logdir, deterministic=True, steps=300)
    replay = Replay(
        run_of(logdir) / "episodes", cache_bytes=0, seed=config.seed,
        obs_space=CountingEnv.obs_space, act_space=CountingEnv.act_space,
    )  # fmt: skip
    _, _, state = newest(run_of(logdir))
    assert not replay.restrict(state["members"])
    return replay.sample(state["update"], 4, 5)


def test_killed_and_stopped_anywhere_it_ends_bit_for_bit_as_if_not(
    tmp_path: Path, figure: Callable[[str], None]
):
    """Two environments, episodes of differing lengths, so that some are always under way."""
    whole, harmed = tmp_path / "whole", tmp_path / "harmed"
    first = python(SCRIPT, f"{whole} none 0 none", f"{harmed} episode 15 SIGKILL")
    assert first.returncode == -signal.SIGKILL, first.stderr
    past = set(episodes_of(run_of(harmed)))
    _, _, state = newest(run_of(harmed))
    assert len(past) > len(state["members"]), "no episode came after the checkpoint"
    second = python(
        SCRIPT, f"{harmed} policy 3 SIGTERM", f"{harmed} reset 0 SIGTERM",
        f"{harmed} update 4 SIGINT", f"{harmed} none 0 none",
    )  # fmt: skip
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("stopped by SIG") == 3 and "bit for bit" not in second.stdout
    # The one in the resumption itself is heeded there, before the run goes on.
    assert second.stdout.count("resumed at step") == 3
    arrays = assert_same_run(run_of(whole), run_of(harmed))
    ours, theirs = batch_after(whole), batch_after(harmed)
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
    figure(
        f"killed, SIGTERM while collecting, SIGINT between updates: {arrays} arrays, "
        f"{len(episodes_of(run_of(whole)))} episode files and the next batch bit for bit the same"
    )


@pytest.mark.faults
def test_twice_n_updates_are_n_kill_n_on_dm_control(
    tmp_path: Path, figure: Callable[[str], None]
):
    words = (*whole_runs.DEBUG, "--steps", "800", "--envs.time_limit", "100")
    whole, harmed = tmp_path / "whole", tmp_path / "harmed"
    status, _, errors = finish(start("dreamer.run", *words, "--logdir", whole))
    assert status == 0, errors
    run = harmed / whole_runs.RUN
    process = start("dreamer.run", *words, "--logdir", harmed)
    wait_until(lambda: bool(metrics_of(run)) and metrics_of(run)[-1]["step"] >= 480, process)
    process.kill()
    process.communicate()
    _, _, state = newest(run)
    status, output, errors = finish(start("dreamer.run", *words, "--logdir", harmed))
    assert status == 0 and "bit for bit" not in output, errors
    arrays = assert_same_run(whole / whole_runs.RUN, run)
    updates = newest(run)[2]["update"]
    figure(
        f"dm_control from images, killed after {state['update']} of {updates} updates: {arrays} "
        "arrays and all episode files bit for bit the same"
    )


@pytest.mark.faults
def test_in_fast_mode_every_completed_episode_is_kept_and_used(
    tmp_path: Path, figure: Callable[[str], None]
):
    words = words_for(tmp_path, **{"steps": 2000, "checkpoint.every": 1000})
    process = start("dreamer.run", *words)
    wait_until(lambda: len(list(tmp_path.glob("*/*/*/episodes/*.npz"))) >= 60, process)
    process.kill()
    process.communicate()
    run = run_of(tmp_path)
    before = episodes_of(run)
    status, output, errors = finish(start("dreamer.run", *words))
    assert status == 0, errors
    after = episodes_of(run)
    assert all(after[uid] == content for uid, content in before.items())
    listed = {name.split("-")[1] for name in newest(run)[2]["members"]}
    assert set(before) <= listed
    figure(f"fast mode: {len(before)} episodes before a kill, all {len(before)} kept and used")
