"""1. Kill -9 anywhere: nothing that was complete is lost, and the same command goes on."""

from __future__ import annotations

import re
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import whole_runs
from fault_runs import episodes_of, newest, python, run_of, words_for
from test_05_environments import is_gone
from whole_runs import metrics_of, wait_until

from dreamer.episodes import EpisodeFile
from dreamer.schedule import UpdateSchedule

# Runs the main job and kills it for good: at the nth file that is written in a folder, half of it
# on the disk; or some time after the nth episode; or some time after the start.
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
from dreamer.cli import run_main
from dreamer.run import main
sys.argv[1:] = words
run_main(main)
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


class Witness:
    """Looks at a run after each kill, and remembers what it must still hold after the next."""

    def __init__(self, logdir: Path) -> None:
        self.logdir = logdir
        self.episodes: dict[str, bytes] = {}
        self.checkpoint = 0

    def look(self) -> None:
        if not list(self.logdir.glob("*/*/*/config.yaml")):
            return
        run = run_of(self.logdir)
        episodes = episodes_of(run)
        for uid, content in self.episodes.items():
            assert episodes[uid] == content, f"{uid} is not what it was"
        for path in (run / "episodes").glob("*.npz"):
            file = EpisodeFile(path)
            file.check(file.keys)
        self.episodes = episodes
        if any((run / "checkpoints").glob("0*")):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                step, _, _ = newest(run)
            assert step >= self.checkpoint
            self.checkpoint = step


def kill_again_and_again(
    words: list[str], logdir: Path, places: list[tuple[str, int, float]]
) -> Witness:
    witness = Witness(logdir)
    for place, at, delay in places:
        done = python(KILLER, place, str(at), str(delay), *words, "--steps", "100000")
        assert done.returncode == -signal.SIGKILL, done.stderr
        match = re.search(r"going on from step (\d+)", done.stdout)
        assert match is None or int(match[1]) >= witness.checkpoint
        assert "damaged" not in done.stdout and "set aside: " not in done.stdout
        assert "Traceback" not in done.stderr
        witness.look()
    return witness


def finish_the_run(words: list[str], witness: Witness, schedule: UpdateSchedule) -> int:
    """Runs on to a target, and returns how many steps that is."""
    target = witness.checkpoint + 400
    done = python(KILLER, "nowhere", "0", "0", *words, "--steps", str(target))
    assert done.returncode == 0, done.stderr
    witness.look()
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


@pytest.mark.parametrize(
    ("kills", "forced", "debug"),
    [(10, 4, False), pytest.param(50, 10, True, marks=pytest.mark.faults)],
)
def test_nothing_is_lost_by_kills(
    tmp_path: Path, figure: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, kills: int,
    forced: int, debug: bool,
):  # fmt: skip
    monkeypatch.setenv("DREAMER_TEST_RUN", str(tmp_path))
    schedule = UpdateSchedule(prefill=50, pretrain=3, every=30, updates=7)
    words = words_for(tmp_path, **{"checkpoint.every": 30})
    if debug:
        schedule = UpdateSchedule(prefill=160, pretrain=2, every=80, updates=2)
        words = [*whole_runs.DEBUG[:-1], "false", "--logdir", str(tmp_path)]
        words += ["--checkpoint.every", "80"]
    words = [word for pair in zip(words[::2], words[1::2], strict=True) if pair[0] != "--steps"
             for word in pair]  # fmt: skip
    witness = kill_again_and_again(words, tmp_path, moments(kills, forced, seed=kills))
    end = finish_the_run(words, witness, schedule)
    wait_until(lambda: not [pid for pid in children_left(tmp_path) if not is_gone(pid)])
    figure(
        f"{kills} kills, {forced} of them within a write: {len(witness.episodes)} episodes, none "
        f"lost or damaged; ended at step {end}"
    )
