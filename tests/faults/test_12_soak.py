"""12. A long run with faults at random moments, at the end of which the counters add up."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from fault_runs import TESTS, environ, newest, run_of, words_for
from whole_runs import ROOT, children_of, metrics_of, start, wait_until
from witness import Witness

from dreamer.config.config import load_config
from dreamer.data.episodes import EpisodeFile, episode_uid
from dreamer.training.schedule import UpdateSchedule

FAULTY = f"{TESTS}/faults/noted_env.py:faulty"
CARTPOLE = f"{TESTS}/faults/noted_env.py:long_cartpole"
SECONDS = float(os.environ.get("SOAK_SECONDS", "7200"))
FAULTS = ("kill", "stop", "worker", "hang", "episode", "checkpoint")


class Soak:
    """Starts a run again and again, and does it harm.

    Args:
        folder: Takes the runs and what their processes print and note.
        words: Of the command line, but for the steps.
        seed: Of the harm.
        faults: Probability of a fault of the environment at a step, where it is the faulty one.

    Attributes:
        done: How often each fault was done.
        workers_harmed: Each costs one episode, which the environment may not have noted.
    """

    def __init__(self, folder: Path, words: list[str], seed: int, faults: float = 0.0) -> None:
        self.folder, self.words = folder, words
        self.done: Counter[str] = Counter()
        self.witness = Witness(folder / "runs")
        self.workers_harmed = 0
        self._variables = {"DREAMER_TEST_FAULTS": str(faults)}
        self._harmed_checkpoints: set[Path] = set()
        self._rng = np.random.default_rng(seed)
        self._processes = 0

    def cycle(self, fault: str, longest: int) -> None:
        """One process: some episodes, one fault, and the end of the process."""
        harmed = fault in ("worker", "hang")
        with self._started("10000000") as (process, notes):
            self._let_collect(process, int(self._rng.integers(1, longest)))
            if harmed:
                self._harm_worker(process, fault)
                self._let_collect(process, 2)
            process.send_signal(signal.SIGTERM if fault == "stop" else signal.SIGKILL)
            status = process.wait(500)
        assert status in (-signal.SIGKILL, 128 + signal.SIGTERM), notes
        self.workers_harmed += harmed
        self.witness.look(notes, lost=int(harmed), checkpoints=not self._harmed_checkpoints)
        self.done[fault if self._damage(fault) else "kill"] += 1

    def finish(self, more: int) -> Path:
        """Runs to a target and ends as runs end."""
        run = run_of(self.folder / "runs")
        lines = metrics_of(run)
        target = (lines[-1]["step"] if lines else 0) + more
        with self._started(str(target)) as (process, notes):
            status = process.wait(1800)
        assert status == 0, notes.with_suffix(".txt").read_text()
        self.witness.look(notes, checkpoints=not self._harmed_checkpoints)
        return run

    @contextmanager
    def _started(self, steps: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
        """The next process, and the file that its environments write their notes to."""
        notes = self.folder / "processes" / str(self._processes)
        self._processes += 1
        notes.parent.mkdir(exist_ok=True)
        notes.touch()
        variables = {**self._variables, "DREAMER_TEST_NOTES": str(notes)}
        with open(notes.with_suffix(".txt"), "w") as output:
            process = start(
                "dreamer.run", *self.words, "--steps", steps, stdout=output, stderr=output,
                env=environ(**variables), cwd=ROOT,
            )  # fmt: skip
            try:
                yield process, notes
            finally:
                process.kill()
                process.wait(500)

    def _episodes(self) -> list[Path]:
        return sorted(self.folder.glob("runs/*/*/*/episodes/*.npz"))

    def _let_collect(self, process: subprocess.Popen[str], amount: int) -> None:
        before = len(self._episodes())
        for more in range(1, amount + 1):  # each within wait_until's minutes, all may take longer
            wait_until(lambda more=more: len(self._episodes()) >= before + more, process)

    def _harm_worker(self, process: subprocess.Popen[str], fault: str) -> None:
        """Kills or halts one of the processes that it has started."""
        workers = children_of(process)
        pid = workers[int(self._rng.integers(len(workers)))]
        os.kill(pid, signal.SIGKILL if fault == "worker" else signal.SIGSTOP)

    def _damage(self, fault: str) -> bool:
        """Where the fault is one of files, flips a byte of an episode or of the newest sound
        checkpoint; of none twice, which would mend it. False where it is the only checkpoint.
        """
        run = run_of(self.folder / "runs")
        if fault == "episode":
            paths = [p for p in self._episodes() if episode_uid(p) not in self.witness.harmed]
            path = paths[int(self._rng.integers(len(paths)))]
            flip(path)
            self.witness.harm(path)
        elif fault == "checkpoint":
            folders = sorted({*(run / "checkpoints").glob("0*")} - self._harmed_checkpoints)
            if len(folders) < 2:
                return False
            flip(folders[-1] / "arrays.npz")
            self._harmed_checkpoints.add(folders[-1])
        return True

    def check_counters(self, run: Path, schedule: UpdateSchedule) -> tuple[int, int, int]:
        """Episodes written, collected and dropped: every one that began, by the environments' own
        notes, is on the disk, set aside, under way or counted as dropped. Updates = ratio x steps.
        """
        step, _, state = newest(run)
        for path in (run / "episodes").glob("*.npz"):
            assert path.name in state["members"]
            if episode_uid(path) not in self.witness.harmed:
                file = EpisodeFile(path)
                file.check(file.keys)
        begun, written = self.witness.begun, self.witness.episodes.keys()
        under_way = {
            f"s0e{episode['number']:08d}" for episode in state["collector"]["under_way"] if episode
        }
        assert self.witness.ended <= written <= begun and under_way <= begun - written
        lost = len(begun - written - under_way)
        assert lost <= state["dropped"] <= lost + self.workers_harmed
        assert len(written) == state["next_episode"] - len(under_way) - state["dropped"]
        assert state["update"] == schedule.due(step)
        lines = metrics_of(run)
        steps = [line["step"] for line in lines]
        assert steps == sorted(set(steps))
        assert all(line["updates"] == schedule.due(line["step"]) for line in lines)
        return len(written), len(begun), state["dropped"]


def flip(path: Path) -> None:
    """Flips a byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def test_a_short_soak(tmp_path: Path, figure: Callable[[str], None]):
    words = words_for(tmp_path / "runs", FAULTY, **{"envs.timeout": 120.0})
    words = words[: words.index("--steps")] + words[words.index("--steps") + 2 :]
    soak = Soak(tmp_path, words, seed=0, faults=0.02)
    soak.cycle("episode", 12)
    run = soak.finish(200)
    written, begun, dropped = soak.check_counters(
        run, UpdateSchedule(prefill=50, pretrain=3, every=30, updates=7)
    )
    assert dropped > 0
    figure(f"short soak: {begun} episodes begun, {written} written, {dropped} dropped")


@pytest.mark.faults
def test_a_long_soak(tmp_path: Path, figure: Callable[[str], None]):
    """For SOAK_SECONDS (two hours): dm_control from images, preset small."""
    words = [
        *("--task", CARTPOLE, "--configs", "small", "--logdir", tmp_path / "runs"),
        *("--envs.num_envs", "2", "--envs.timeout", "30"),
        *("--train.prefill", "1000", "--eval.every", "4000", "--eval.episodes", "1"),
        *("--checkpoint.every", "1000", "--log.terminal", "plain"),
    ]
    soak = Soak(tmp_path, list(map(str, words)), seed=1)
    end, rng = time.monotonic() + SECONDS, np.random.default_rng(2)
    while time.monotonic() < end:
        soak.cycle(FAULTS[int(rng.integers(len(FAULTS)))], longest=24)
    run = soak.finish(1000)
    t = load_config("small", task=CARTPOLE).train
    schedule = UpdateSchedule(1000, t.pretrain, t.every, t.updates)
    written, begun, dropped = soak.check_counters(run, schedule)
    faults = ", ".join(f"{amount} {name}" for name, amount in sorted(soak.done.items()))
    figure(
        f"{SECONDS / 3600:.2f} h at preset small with {soak.done.total()} faults ({faults}): "
        f"{begun} episodes begun, {written} written, {dropped} dropped; "
        f"{newest(run)[2]['update']} updates = ratio x steps"
    )
