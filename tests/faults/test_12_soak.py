"""12. After a long run with faults at random moments, all counters add up."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fault_runs import SCHEDULE, TESTS, Figure, check_episodes, newest, run_of, words_for
from whole_runs import children_of, metrics_of, wait_until
from witness import Witness

from dreamer.config.config import load_config
from dreamer.data.episodes import episode_uid
from dreamer.training.schedule import UpdateSchedule

FAULTY = f"{TESTS}/faults/faulty_env.py:noted_faulty"
CARTPOLE = f"{TESTS}/faults/faulty_env.py:noted_long_cartpole"
SECONDS = float(os.environ.get("SOAK_SECONDS", "7200"))
FAULTS = ("kill", "stop", "worker", "hang", "episode", "checkpoint")


class Soak:
    """Starts a run again and again, and does it harm.

    Args:
        folder: Takes the runs and what their processes print and note.
        words: Words of the command line, except the steps.
        seed: Seed of the harm.
        options: Options of the processes.

    Attributes:
        done: How often each fault was done.
        workers_harmed: Each costs one episode, which the environment may not have noted.
    """

    def __init__(self, folder: Path, words: list[str], seed: int, **options: str) -> None:
        self.words, self.options = words, options
        self.done: Counter[str] = Counter()
        self.witness = Witness(folder)
        self.workers_harmed = 0
        self._output = folder / "output.txt"
        self._harmed_checkpoints: set[Path] = set()
        self._rng = np.random.default_rng(seed)

    def cycle(self, fault: str, longest: int) -> None:
        """One process: some episodes, one fault, and the end of the process."""

        def harm(process: subprocess.Popen[str]) -> None:
            self._let_collect(process, int(self._rng.integers(1, longest)))
            if fault in ("worker", "hang"):
                self._harm_worker(process, fault)
                self._let_collect(process, 2)
            process.send_signal(signal.SIGTERM if fault == "stop" else signal.SIGKILL)

        ends = (-signal.SIGKILL, 128 + signal.SIGTERM)
        self._process("10000000", harm, ends, lost=int(fault in ("worker", "hang")))
        self.done[fault if self._damage(fault) else "kill"] += 1

    def finish(self, more: int) -> Path:
        """Runs to a target and ends as runs end."""
        run = run_of(self.witness.logdir)
        lines = metrics_of(run)
        self._process(str((lines[-1]["step"] if lines else 0) + more), lambda process: None, (0,))
        return run

    def _process(
        self, steps: str, harm: Callable[[subprocess.Popen[str]], None], ends: tuple[int, ...],
        lost: int = 0,
    ) -> None:  # fmt: skip
        words = [*self.words, "--steps", steps]
        with (
            open(self._output, "w") as output,
            self.witness.started(words, stdout=output, stderr=output, **self.options) as process,
        ):
            harm(process)
            assert process.wait(1800) in ends, self._output.read_text()
        self.workers_harmed += lost
        self.witness.look(lost, checkpoints=not self._harmed_checkpoints)

    def _episodes(self) -> list[Path]:
        return sorted(self.witness.logdir.glob("*/*/*/episodes/*.npz"))

    def _let_collect(self, process: subprocess.Popen[str], amount: int) -> None:
        before = len(self._episodes())
        for more in range(1, amount + 1):
            # A resumed run first makes up for its missing updates: minutes on a busy machine.
            wait_until(
                lambda more=more: len(self._episodes()) >= before + more, process, limit=1800
            )

    def _harm_worker(self, process: subprocess.Popen[str], fault: str) -> None:
        """Kills or halts one of the processes that it has started."""
        workers = children_of(process)
        pid = workers[int(self._rng.integers(len(workers)))]
        os.kill(pid, signal.SIGKILL if fault == "worker" else signal.SIGSTOP)

    def _damage(self, fault: str) -> bool:
        """For a fault of files, flips a byte of an episode or of the newest sound checkpoint, but
        not twice, which would mend it. Returns False if there is no other checkpoint.
        """
        run = run_of(self.witness.logdir)
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
        check_episodes(run, self.witness.harmed)
        assert {path.name for path in self._episodes()} <= set(state["members"])
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


@pytest.mark.slow
def test_a_short_soak(tmp_path: Path, figure: Figure):
    words = words_for(tmp_path / "runs", FAULTY, steps=None, **{"envs.timeout": 120.0})
    soak = Soak(tmp_path, words, seed=0, agent="numpy", DREAMER_TEST_FAULTS="0.02")
    for fault in ("worker", "stop", "checkpoint", "episode"):
        soak.cycle(fault, 12)
    written, begun, dropped = soak.check_counters(soak.finish(200), SCHEDULE)
    assert dropped > 0 and soak.done.keys() >= {"worker", "stop", "episode"}
    figure(f"short soak: {begun} episodes begun, {written} written, {dropped} dropped")


@pytest.mark.faults
def test_a_long_soak(tmp_path: Path, figure: Figure):
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
