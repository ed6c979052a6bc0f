"""12. A long run with faults at random moments, at the end of which the counters add up."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fault_runs import FAULTY, environ, newest, run_of, words_for
from whole_runs import ROOT, finish, metrics_of, start, wait_until

from dreamer.episodes import EpisodeFile, episode_uid, moved_aside
from dreamer.schedule import UpdateSchedule

SECONDS = float(os.environ.get("SOAK_SECONDS", "7200"))
FAULTS = ("kill", "stop", "worker", "hang", "episode", "checkpoint")


def children_of(process: subprocess.Popen[str]) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in listed.split()]


class Soak:
    """Starts a run again and again, and does it harm."""

    def __init__(self, logdir: Path, words: list[str], seed: int) -> None:
        self.logdir, self.words = logdir, words
        self.done: Counter[str] = Counter()
        self._rng = np.random.default_rng(seed)
        self._outputs = 0

    def cycle(self, fault: str, longest: int) -> None:
        """One process: some episodes, one fault, and the end of the process."""
        (self.logdir / "output").mkdir(exist_ok=True)
        self._outputs += 1
        with open(self.logdir / "output" / f"{self._outputs}.txt", "w") as output:
            process = start(
                "dreamer.run", *self.words, "--steps", "10000000", stdout=output, stderr=output,
                env=environ(DREAMER_TEST_FAULTS="0.003"), cwd=ROOT,
            )  # fmt: skip
            self._let_collect(process, int(self._rng.integers(1, longest)))
            if fault in ("worker", "hang"):
                self._harm_worker(process, fault)
                self._let_collect(process, 2)
            process.send_signal(signal.SIGTERM if fault == "stop" else signal.SIGKILL)
            status = process.wait(500)
        assert status in (-signal.SIGKILL, 128 + signal.SIGTERM), self._outputs
        if fault in ("episode", "checkpoint"):
            self._damage(fault)
        self.done[fault] += 1

    def _episodes(self) -> list[Path]:
        return sorted(self.logdir.glob("runs/*/*/*/episodes/*.npz"))

    def _let_collect(self, process: subprocess.Popen[str], amount: int) -> None:
        before = len(self._episodes())
        wait_until(lambda: len(self._episodes()) >= before + amount, process)

    def _harm_worker(self, process: subprocess.Popen[str], fault: str) -> None:
        """Kills or halts one of the processes that it has started."""
        workers = children_of(process)
        pid = workers[int(self._rng.integers(len(workers)))]
        os.kill(pid, signal.SIGKILL if fault == "worker" else signal.SIGSTOP)

    def _damage(self, what: str) -> None:
        """Flips a byte of an episode, or of the newest checkpoint if there are two."""
        run = run_of(self.logdir / "runs")
        if what == "episode":
            paths = self._episodes()
            path = paths[int(self._rng.integers(len(paths)))]
        else:
            folders = sorted((run / "checkpoints").glob("0*"))
            if len(folders) < 2:
                return
            path = folders[-1] / "arrays.npz"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)

    def finish(self, more: int) -> Path:
        """Runs to a target and ends as runs end."""
        run = run_of(self.logdir / "runs")
        lines = metrics_of(run)
        target = (lines[-1]["step"] if lines else 0) + more
        process = start("dreamer.run", *self.words, "--steps", str(target), env=environ())
        status, _, errors = finish(process)
        assert status == 0, errors
        return run


def check_counters(run: Path, schedule: UpdateSchedule) -> tuple[int, int, int]:
    """Episodes written = collected - dropped; updates = ratio x steps. Returns the three."""
    step, _, state = newest(run)
    under_way = sum(episode is not None for episode in state["collector"]["under_way"])
    collected = state["next_episode"] - under_way
    for path in (run / "episodes").glob("*.npz"):
        file = EpisodeFile(path)
        assert path.name in state["members"]
        file.check(file.keys)
    written = {episode_uid(path) for path in (run / "episodes").glob("*.npz")}
    written |= set(moved_aside(run / "episodes" / "damaged"))
    assert len(written) == collected - state["dropped"]
    assert state["update"] == schedule.due(step)
    lines = metrics_of(run)
    steps = [line["step"] for line in lines]
    assert steps == sorted(set(steps))
    assert all(line["updates"] == schedule.due(line["step"]) for line in lines)
    return len(written), collected, state["dropped"]


def test_a_short_soak(tmp_path: Path, figure: Callable[[str], None]):
    words = words_for(tmp_path / "runs", FAULTY, **{"envs.timeout": 120.0})
    words = words[: words.index("--steps")] + words[words.index("--steps") + 2 :]
    soak = Soak(tmp_path, words, seed=0)
    soak.cycle("episode", 12)
    run = soak.finish(200)
    written, collected, dropped = check_counters(
        run, UpdateSchedule(prefill=50, pretrain=3, every=30, updates=7)
    )
    figure(f"short soak: {written} episodes written = {collected} collected - {dropped} dropped")


@pytest.mark.faults
def test_a_long_soak(tmp_path: Path, figure: Callable[[str], None]):
    """For SOAK_SECONDS (two hours): dm_control from images, preset small."""
    words = [
        *("--task", "dmc_cartpole_balance", "--configs", "small", "--logdir", tmp_path / "runs"),
        *("--envs.time_limit", "200", "--envs.amount", "2", "--envs.timeout", "30"),
        *("--train.prefill", "1000", "--eval.every", "4000", "--eval.episodes", "1"),
        *("--checkpoint.every", "1000", "--log.terminal", "plain"),
    ]
    soak = Soak(tmp_path, list(map(str, words)), seed=1)
    end, rng = time.monotonic() + SECONDS, np.random.default_rng(2)
    while time.monotonic() < end:
        soak.cycle(FAULTS[int(rng.integers(len(FAULTS)))], longest=24)
    run = soak.finish(1000)
    from dreamer.config import load_config

    t = load_config("small", task="dmc_cartpole_balance").train
    schedule = UpdateSchedule(1000, t.pretrain, t.every, t.updates)
    written, collected, dropped = check_counters(run, schedule)
    faults = ", ".join(f"{amount} {name}" for name, amount in sorted(soak.done.items()))
    figure(
        f"{SECONDS / 3600:.2f} h at preset small with {soak.done.total()} faults ({faults}): "
        f"{written} episodes written = {collected} collected - {dropped} dropped; "
        f"{newest(run)[2]['update']} updates = ratio x steps"
    )
