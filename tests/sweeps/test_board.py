"""What a sweep shows, from the files of its runs."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from dreamer.config.config import load_config
from dreamer.sweeps.board import Board
from dreamer.sweeps.plan import Trial
from dreamer.sweeps.trial import record_attempt


class Clock:
    """Time that passes when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_trials(folder: Path, amount: int, steps: int = 400) -> list[Trial]:
    config = load_config("debug", overrides={"steps": steps})
    paths = [folder / "task" / "method" / str(seed) for seed in range(amount)]
    for path in paths:
        path.mkdir(parents=True)
    return [Trial(path, (), config) for path in paths]


def reach(trial: Trial, step: int) -> None:
    with (trial.path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "eval/return": step / 10}) + "\n")


def test_from_waiting_to_the_end(tmp_path: Path, capsys):
    clock = Clock()
    done, first, second = make_trials(tmp_path, 3)
    reach(done, 400)
    board = Board([done], [first, second], "plain", slots=1, clock=clock)
    assert board.summary() == "2 waiting, 1 skipped; 33.3% of 1,200 steps; ETA ?"
    record_attempt(first.path, "start", pid=1)
    reach(first, 100)
    clock.now += 10
    board.look()
    reach(first, 200)
    clock.now += 10
    board.look()
    # 100 of 800 steps in 10 seconds; 600 are left.
    assert board.summary() == "1 running, 1 waiting, 1 skipped; 50.0% of 1,200 steps; ETA 0:01:00"
    record_attempt(first.path, "end", status=1)
    clock.now += 10
    board.look()
    assert board.summary().startswith("2 waiting, 1 skipped")
    record_attempt(first.path, "start", pid=2)
    reach(first, 400)
    record_attempt(first.path, "end", status=0)
    board.finish(first, "finished", "")
    board.finish(second, "failed", "exit status 1: no")
    assert board.summary() == "1 failed, 1 finished, 1 skipped; 66.7% of 1,200 steps; ETA 0:00:00"
    name = f"task/method/{first.path.name}"
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"{name}: attempt 2 on {socket.gethostname()}",
        f"{name}: finished after 2 attempts",
        "task/method/2: failed: exit status 1: no",
    ]


def test_files_are_read_every_two_seconds_and_a_line_printed_every_minute(tmp_path: Path, capsys):
    clock, (trial,) = Clock(), make_trials(tmp_path, 1)
    board = Board([], [trial], "plain", slots=1, clock=clock)
    for _ in range(21):
        clock.now += 10
        board.look()
    assert capsys.readouterr().out.splitlines() == ["1 waiting; 0.0% of 400 steps; ETA ?"] * 3
    record_attempt(trial.path, "start", pid=1)
    clock.now += 1.9
    board.look()
    assert board.entries[0].state == "waiting"
    clock.now += 0.2
    board.look()
    assert board.entries[0].state == "running"


def test_bars_of_trials_that_run_and_names_stay_text(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    config = load_config("debug")
    trials = [Trial(tmp_path / "task" / f"[red]m\x1b[31m{i}" / "0", (), config) for i in range(3)]
    board = Board([], trials, "live", slots=1)
    for trial in trials[:2]:
        trial.path.mkdir(parents=True)
        record_attempt(trial.path, "start", pid=1)
    board.finish(trials[0], "failed", "why")
    board.finish(trials[1], "running", "")  # as `look` would find it
    board.close()
    shown = capsys.readouterr().out
    name = "[red]m\N{REPLACEMENT CHARACTER}[31m"
    assert f"task/{name}0/0: failed: why" in shown
    bars = shown[shown.rindex("1 running, 1 failed, 1 waiting") :]
    assert f"{name}1/0" in bars and f"{name}0/0" not in bars
