"""2. Exact resume: a stopped and resumed deterministic run ends as one that was not stopped."""

import signal
from pathlib import Path

import fault_runs
import numpy as np
import pytest
import whole_runs
from fault_runs import Figure, episodes_of, newest, run, run_of, start, start_in_turn, words_for
from whole_runs import finish, metrics_of, wait_until


def assert_same_run(ours: Path, theirs: Path) -> int:
    """Checks that two runs are the same but for their clocks; returns the number of arrays."""
    (step, arrays, state), (other_step, other_arrays, other_state) = newest(ours), newest(theirs)
    assert arrays.keys() == other_arrays.keys()
    assert not [k for k, v in arrays.items() if v.tobytes() != other_arrays[k].tobytes()]
    # The same ids and lengths; the times in the names differ.
    members, other_members = state.pop("members"), other_state.pop("members")
    assert [n.split("-", 1)[1] for n in members] == [n.split("-", 1)[1] for n in other_members]
    del state["wall_time"], other_state["wall_time"]
    assert (step, state) == (other_step, other_state)
    assert episodes_of(ours) == episodes_of(theirs)
    return len(arrays)


def batch_after(run: Path) -> dict[str, np.ndarray]:
    """The batch that the run would draw next."""
    replay = fault_runs.counting_replay(run / "episodes")
    _, _, state = newest(run)
    assert not replay.restrict(state["members"])
    return replay.sample(state["update"], 4, 5)


def test_killed_and_stopped_anywhere_it_ends_bit_for_bit_as_if_not(tmp_path: Path, figure: Figure):
    """Two environments, episodes of differing lengths, so that some are always under way."""
    quick = {"train.updates": 1, "train.batch_length": 2, "behavior.horizon": 2}
    whole, harmed = (
        words_for(tmp_path / name, deterministic=True, steps=300, **quick)
        for name in ("whole", "harmed")
    )

    def stopped(place: str, count: int, number: int) -> tuple[list[str], list[fault_runs.Harm]]:
        return harmed, [(place, count, number, 0)]

    first = start_in_turn([(whole, []), stopped("write", 15, signal.SIGKILL)], agent="eager")
    status, _, errors = finish(first)
    assert status == -signal.SIGKILL, errors
    ours, theirs = run_of(tmp_path / "whole"), run_of(tmp_path / "harmed")
    assert len(episodes_of(theirs)) > len(newest(theirs)[2]["members"]), (
        "no episode came after the checkpoint"
    )
    second = start_in_turn([
        stopped("policy", 3, signal.SIGTERM), stopped("reset", 0, signal.SIGTERM),
        stopped("update", 2, signal.SIGINT), (harmed, []),
    ], agent="eager")  # fmt: skip
    status, output, errors = finish(second)
    assert status == 0, errors
    assert output.count("stopped by SIG") == 3 and "bit for bit" not in output
    # The one in the resumption itself is heeded there, before the run goes on.
    assert output.count("resumed at step") == 3
    arrays = assert_same_run(ours, theirs)
    batch, other = batch_after(ours), batch_after(theirs)
    assert all(np.array_equal(batch[key], other[key]) for key in batch)
    figure(
        f"killed, SIGTERM while collecting, SIGINT between updates: {arrays} arrays, "
        f"{len(episodes_of(ours))} episode files and the next batch bit for bit the same"
    )


@pytest.mark.faults
def test_twice_n_updates_are_n_kill_n_on_dm_control(tmp_path: Path, figure: Figure):
    words = [*whole_runs.DEBUG, "--steps", "800", "--envs.time_limit", "100", "--logdir"]
    whole, harmed = [*words, str(tmp_path / "whole")], [*words, str(tmp_path / "harmed")]
    status, _, errors = run(whole)
    assert status == 0, errors
    path = tmp_path / "harmed" / whole_runs.RUN
    process = start(harmed)
    wait_until(lambda: bool(metrics_of(path)) and metrics_of(path)[-1]["step"] >= 480, process)
    process.kill()
    process.communicate()
    before = newest(path)[2]["update"]
    status, output, errors = run(harmed)
    assert status == 0 and "bit for bit" not in output, errors
    arrays = assert_same_run(tmp_path / "whole" / whole_runs.RUN, path)
    figure(
        f"dm_control from images, killed after {before} of {newest(path)[2]['update']} updates: "
        f"{arrays} arrays and all episode files bit for bit the same"
    )


@pytest.mark.faults
def test_in_fast_mode_every_completed_episode_is_kept_and_used(tmp_path: Path, figure: Figure):
    words = words_for(tmp_path, **{"steps": 2000, "checkpoint.every": 1000})
    process = start(words)
    wait_until(lambda: len(list(tmp_path.glob("*/*/*/episodes/*.npz"))) >= 60, process)
    process.kill()
    process.communicate()
    before = episodes_of(run_of(tmp_path))
    status, _, errors = run(words)
    assert status == 0, errors
    after = episodes_of(run_of(tmp_path))
    assert after.items() >= before.items()
    listed = {name.split("-")[1] for name in newest(run_of(tmp_path))[2]["members"]}
    assert set(before) <= listed
    figure(f"fast mode: {len(before)} episodes before a kill, all {len(before)} kept and used")
