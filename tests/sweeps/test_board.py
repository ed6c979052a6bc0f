"""What a sweep shows, from the files of its runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamer.config.config import load_config
from dreamer.sweeps.board import Board
from dreamer.sweeps.plan import Trial
from dreamer.sweeps.trial import record_attempt


class Clock:
    """Time that passes when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make_trials(folder: Path, amount: int, steps: int = 400) -> list[Trial]:
    config = load_config("debug", overrides={"steps": steps})
    paths = [folder / "task" / "method" / str(seed) for seed in range(amount)]
    for path in paths:
        path.mkdir(parents=True)
    return [Trial(path, (), config) for path in paths]


def reach(trial: Trial, step: int) -> None:
    with (trial.path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "eval/return": step / 10}) + "\n")


def test_from_waiting_to_the_end(tmp_path: Path, clock: Clock, capsys):
    done, first, second = make_trials(tmp_path, 3)
    reach(done, 400)
    board = Board([done], [first, second], "plain", slots=1, clock=clock)
    assert board.summary() == "2 waiting, 1 skipped; 33.3% of 1,200 steps; ETA ?"
    record_attempt(first.path, "start", pid=1)
    reach(first, 100)
    clock.now += 10
    board.look()
    # 100 of 800 steps in 10 seconds.
    assert board.summary() == "1 running, 1 waiting, 1 skipped; 41.7% of 1,200 steps; ETA 0:01:10"
    record_attempt(first.path, "end", status=1)
    clock.now += 10
    board.look()
    assert board.summary().startswith("2 waiting, 1 skipped")
    record_attempt(first.path, "start", pid=2)
    reach(first, 400)
    record_attempt(first.path, "end", status=0)
    board.finish(first, "finished", "")
    board.finish(second, "failed", "exit status 1: no")
    assert board.summary() == (
        "1 failed, 1 finished, 1 skipped; 66.7% of 1,200 steps; ETA 0:00:00"
    )
    name = f"task/method/{first.path.name}"
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"{name}: attempt 2 on {board.entries[1].host}",
        f"{name}: finished after 2 attempts",
        "task/method/2: failed: exit status 1: no",
    ]


def test_files_are_not_read_at_every_turn(tmp_path: Path, clock: Clock):
    (trial,) = make_trials(tmp_path, 1)
    board = Board([], [trial], "plain", slots=1, clock=clock)
    record_attempt(trial.path, "start", pid=1)
    clock.now += 1.9
    board.look()
    assert board.entries[0].state == "waiting"
    clock.now += 0.2
    board.look()
    assert board.entries[0].state == "running"


def test_a_line_a_minute_without_a_terminal(tmp_path: Path, clock: Clock, capsys):
    board = Board([], make_trials(tmp_path, 1), "plain", slots=1, clock=clock)
    for _ in range(21):
        clock.now += 10
        board.look()
    assert capsys.readouterr().out.splitlines() == ["1 waiting; 0.0% of 400 steps; ETA ?"] * 3


def test_the_live_table_fits_the_screen_and_names_stay_text(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LINES", "12")
    monkeypatch.setenv("COLUMNS", "100")
    config = load_config("debug")
    trials = [Trial(tmp_path / "task" / f"[red]m\x1b[31m{i}" / "0", (), config) for i in range(30)]
    board = Board([], trials, "live", slots=1)
    board.finish(trials[7], "failed", "why")
    board.close()
    shown = capsys.readouterr().out
    table = shown[shown.rindex("trial ") :]
    assert "[red]m\N{REPLACEMENT CHARACTER}[31m7" in table.splitlines()[1]  # failures come first
    assert "and 23 more" in table and "1 failed, 29 waiting" in table
