"""1. Kill -9 anywhere: nothing that was complete is lost, and the same command goes on."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import whole_runs
from fault_runs import TESTS, python, run_of, words_for
from whole_runs import is_gone, metrics_of, wait_until
from witness import Witness

from dreamer.training.schedule import UpdateSchedule

COUNTING = f"{TESTS}/faults/noted_env.py:counting"
CARTPOLE = f"{TESTS}/faults/noted_env.py:cartpole"

# Runs the main job and kills it for good: at the nth file that is written in a folder, half of it
# on the disk; or some time after the nth episode, or after the start; or before the nth update,
# some time after it was due.
KILLER = """
import os, signal, sys, threading, time
place, at, delay, words = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]
sync, count = os.fsync, iter(range(10**9))

def later():
    time.sleep(delay)
    os.kill(os.getpid(), signal.SIGKILL)

def fsync(descriptor):
    name = os.readlink(f"/proc/self/fd/{descriptor}")
    inside = name.endswith(".npz") or ".npz." in name
    if inside and f"/{place}/." in name and next(count) == at:
        fd = os.open(name, os.O_WRONLY)
        os.ftruncate(fd, os.fstat(fd).st_size // 2)
        sync(fd)
        os.kill(os.getpid(), signal.SIGKILL)
    if place == "after" and "/episodes/." in name and next(count) == at:
        threading.Thread(target=later).start()
    sync(descriptor)

if place == "start":
    threading.Thread(target=later).start()
os.fsync = fsync
if place == "update":
    from dreamer.agent.agent import Agent
    train_step = Agent.train_step

    def counted(self, *args):
        if next(count) == at:
            later()
        return train_step(self, *args)

    Agent.train_step = counted
from functools import partial
from dreamer import run
from dreamer.config.command_line import run_main
if "DREAMER_TEST_STUB" in os.environ:
    from numpy_agent import NumpyAgent
    run.train = partial(run.train, make_agent=NumpyAgent)
sys.argv[1:] = words
run_main(run.main)
"""


def moments(kills: int, forced: int, seed: int) -> list[tuple[str, int, float]]:
    """Where each kill falls: (place, count, seconds)."""
    rng = np.random.default_rng(seed)
    found: list[tuple[str, int, float]] = []
    for number in range(kills):
        place = ("episodes", "checkpoints")[number % 2] if number < forced else "after"
        if place == "after" and number % 4 == 3:
            place = "start"
        most = {"episodes": 8, "checkpoints": 2, "after": 10, "start": 1}[place]
        seconds = rng.uniform(0, 8 if place == "start" else 0.3)
        found.append((place, int(rng.integers(most)), float(seconds)))
    return [found[int(k)] for k in rng.permutation(kills)]


def run_killed(
    words: list[str], logdir: Path, place: str, at: int = 0, delay: float = 0.0
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Runs the killer; also returns what its environments noted."""
    (logdir / "notes").mkdir(exist_ok=True)
    notes = logdir / "notes" / str(len(list((logdir / "notes").iterdir())))
    notes.touch()
    done = python(KILLER, place, str(at), str(delay), *words, DREAMER_TEST_NOTES=str(notes))
    return done, notes


def kill_again_and_again(
    words: list[str], logdir: Path, places: list[tuple[str, int, float]]
) -> Witness:
    witness = Witness(logdir / "runs")
    for place, at, delay in places:
        done, notes = run_killed([*words, "--steps", "100000"], logdir, place, at, delay)
        assert done.returncode == -signal.SIGKILL, done.stderr
        match = re.search(r"resumed at step (\d+)", done.stdout)
        assert match is None or int(match[1]) >= witness.checkpoint
        assert "damaged" not in done.stdout and "set aside: " not in done.stdout
        assert "Traceback" not in done.stderr
        witness.look(notes)
    return witness


def finish_the_run(words: list[str], witness: Witness, schedule: UpdateSchedule) -> int:
    """Runs on to a target, and returns how many steps that is."""
    target = witness.checkpoint + 400
    done, notes = run_killed([*words, "--steps", str(target)], witness.logdir.parent, "nowhere")
    assert done.returncode == 0, done.stderr
    witness.look(notes)
    run = run_of(witness.logdir)
    lines = metrics_of(run)
    steps = [line["step"] for line in lines]
    assert steps == sorted(set(steps)) and steps[-1] >= target
    assert all(line["updates"] == schedule.due(line["step"]) for line in lines)
    assert not list(run.rglob(".*.tmp")) and not list((run / "episodes").glob("damaged/*"))
    return steps[-1]


def children_left(logdir: Path) -> list[int]:
    """Processes that still have this run's folder on their command line, or come from one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"DREAMER_TEST_RUN={logdir}\0".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def without_steps(words: list[str]) -> list[str]:
    pairs = zip(words[::2], words[1::2], strict=True)
    return [word for pair in pairs if pair[0] != "--steps" for word in pair]


@pytest.mark.parametrize(
    ("kills", "forced", "debug"),
    [(10, 4, False), pytest.param(50, 10, True, marks=pytest.mark.faults)],
)
def test_nothing_is_lost_by_kills(
    tmp_path: Path, figure: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, kills: int,
    forced: int, debug: bool,
):  # fmt: skip
    monkeypatch.setenv("DREAMER_TEST_RUN", str(tmp_path))
    if not debug:  # the files are the same, and ten processes start in half the time
        monkeypatch.setenv("DREAMER_TEST_STUB", "1")
    schedule = UpdateSchedule(prefill=50, pretrain=3, every=30, updates=7)
    words = without_steps(words_for(tmp_path / "runs", COUNTING, **{"checkpoint.every": 30}))
    if debug:
        schedule = UpdateSchedule(prefill=160, pretrain=2, every=80, updates=2)
        words = ["--task", CARTPOLE, *whole_runs.DEBUG[2:-1], "false"]
        words += ["--logdir", str(tmp_path / "runs"), "--checkpoint.every", "80"]
    witness = kill_again_and_again(words, tmp_path, moments(kills, forced, seed=kills))
    end = finish_the_run(words, witness, schedule)
    wait_until(lambda: not [pid for pid in children_left(tmp_path) if not is_gone(pid)])
    figure(
        f"{kills} kills, {forced} of them within a write: {len(witness.episodes)} episodes, none "
        f"lost or damaged; ended at step {end}"
    )


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.faults)])
def test_nothing_is_lost_by_kills_while_collecting_beside_updates(
    tmp_path: Path, figure: Callable[[str], None], kills: int
):
    """The first falls into the last update beside the second round, whose episodes have ended."""
    rng = np.random.default_rng(kills)
    places = [("update", 9 + int(n) * int(rng.integers(20)), 1.0) for n in np.arange(kills) > 0]
    words = words_for(tmp_path / "runs", COUNTING, **{"train.overlap": True})
    witness = kill_again_and_again(without_steps(words), tmp_path, places)
    assert witness.ended
    figure(
        f"{kills} kills while a round is collected beside updates: {len(witness.ended)} episodes "
        "had ended, none lost"
    )
