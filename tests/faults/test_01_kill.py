"""1. Kill -9 anywhere: nothing that was complete is lost, and the same command resumes."""

import re
import signal
from pathlib import Path

import numpy as np
import pytest
import whole_runs
from fault_runs import SCHEDULE, TESTS, Figure, Harm, run_of, words_for
from whole_runs import finish, is_gone, metrics_of, wait_until
from witness import Witness

from dreamer.training.schedule import UpdateSchedule

COUNTING = f"{TESTS}/faults/faulty_env.py:noted_counting"
CARTPOLE = f"{TESTS}/faults/faulty_env.py:noted_cartpole"


def moments(kills: int, forced: int, start: float) -> list[Harm]:
    """Kills at the nth file of a folder, half of it on the disk; or some time after the nth
    episode, or after the start, which takes `start` seconds."""
    rng = np.random.default_rng(kills)
    found: list[Harm] = []
    for number in range(kills):
        place = ("episodes", "checkpoints")[number % 2] if number < forced else "write"
        if place == "write" and number % 4 == 3:
            place = "start"
        most = {"episodes": 8, "checkpoints": 2, "write": 10, "start": 1}[place]
        seconds = {"write": 0.3, "start": start}.get(place, 0.0) * rng.uniform()
        found.append((place, int(rng.integers(most)), signal.SIGKILL, seconds))
    return [found[int(k)] for k in rng.permutation(kills)]


def kill_again_and_again(words: list[str], folder: Path, kills: list[Harm], agent: str) -> Witness:
    witness = Witness(folder)
    for kill in kills:
        with witness.started([*words, "--steps", "100000"], kill, agent=agent) as process:
            status, output, errors = finish(process)
        assert status == -signal.SIGKILL, errors
        match = re.search(r"resumed at step (\d+)", output)
        assert match is None or int(match[1]) >= witness.checkpoint
        assert "damaged" not in output and "set aside: " not in output
        assert "Traceback" not in errors
        witness.look()
    return witness


def finish_the_run(words: list[str], witness: Witness, schedule: UpdateSchedule, agent: str) -> int:
    """Runs on to a target, and returns how many steps that is."""
    target = witness.checkpoint + 400
    with witness.started([*words, "--steps", str(target)], agent=agent) as process:
        status, _, errors = finish(process)
    assert status == 0, errors
    witness.look()
    run = run_of(witness.logdir)
    lines = metrics_of(run)
    steps = [line["step"] for line in lines]
    assert steps == sorted(set(steps)) and steps[-1] >= target
    assert all(line["updates"] == schedule.due(line["step"]) for line in lines)
    assert not list(run.rglob(".*.tmp")) and not list((run / "episodes").glob("damaged/*"))
    return steps[-1]


def children_left(folder: Path) -> list[int]:
    """Processes that note in this folder, or come from one that does."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"DREAMER_TEST_NOTES={folder}/".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("kills", "forced", "agent"),
    [(6, 2, "numpy"), pytest.param(50, 10, "dreamer", marks=pytest.mark.faults)],
)
def test_nothing_is_lost_by_kills(tmp_path: Path, figure: Figure, kills, forced, agent):
    """The files are the same with the NumPy agent, and six processes start in seconds."""
    if agent == "numpy":
        schedule = SCHEDULE
        words = words_for(tmp_path / "runs", COUNTING, steps=None, **{"checkpoint.every": 30})
    else:
        schedule = UpdateSchedule(prefill=160, pretrain=2, every=80, updates=2)
        words = ["--task", CARTPOLE, *whole_runs.DEBUG[2:-1], "false"]
        words += ["--logdir", str(tmp_path / "runs"), "--checkpoint.every", "80"]
    start = 2 if agent == "numpy" else 8
    witness = kill_again_and_again(words, tmp_path, moments(kills, forced, start), agent)
    end = finish_the_run(words, witness, schedule, agent)
    wait_until(lambda: all(map(is_gone, children_left(tmp_path))))
    figure(
        f"{kills} kills, {forced} of them within a write: {len(witness.episodes)} episodes, none "
        f"lost or damaged; ended at step {end}"
    )


@pytest.mark.parametrize(
    ("kills", "agent"), [(2, "numpy"), pytest.param(20, "dreamer", marks=pytest.mark.faults)]
)
def test_nothing_is_lost_by_kills_while_collecting_beside_updates(
    tmp_path: Path, figure: Figure, kills: int, agent: str
):
    """The first falls into the last update beside the second round, whose episodes have ended."""
    rng = np.random.default_rng(kills)
    counts = [9 + int(n) * int(rng.integers(20)) for n in np.arange(kills) > 0]
    places: list[Harm] = [("update", count, signal.SIGKILL, 1.0) for count in counts]
    words = words_for(tmp_path / "runs", COUNTING, steps=None, **{"train.overlap": True})
    witness = kill_again_and_again(words, tmp_path, places, agent)
    assert witness.ended
    figure(
        f"{kills} kills while a round is collected beside updates: {len(witness.ended)} episodes "
        "had ended, none lost"
    )
