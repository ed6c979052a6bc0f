"""What a run's directory tells a sweep."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dreamer.config.config import load_config
from dreamer.errors import UserError
from dreamer.runs.rundir import RunDir, run_path
from dreamer.sweeps.plan import Trial
from dreamer.sweeps.trial import Progress, read_attempts, read_progress, record_attempt


def write(path: Path, *lines: dict, tail: str = "", saved: tuple[int, ...] = ()) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (path / "metrics.jsonl").write_text(text + tail, encoding="utf-8")
    for step in saved:
        (path / "checkpoints" / f"{step:012d}").mkdir(parents=True)


def test_the_last_whole_lines_count(tmp_path: Path):
    assert read_progress(tmp_path / "none") == Progress()
    write(tmp_path, {"step": 10, "eval/return": 3.5}, {"step": 20}, tail='{"step": 30, "eva')
    assert read_progress(tmp_path) == Progress(20, 3.5, 10, -1)
    lines = [{"step": step, "filling": "x" * 1000} for step in range(1000)]
    write(tmp_path, *lines, {"step": 1000, "eval/return": 7})
    assert read_progress(tmp_path) == Progress(1000, 7.0, 1000, -1)


def test_finished_is_evaluated_and_saved_at_the_end(tmp_path: Path):
    write(tmp_path, {"step": 10}, {"step": 20, "eval/return": 1.0}, saved=(10,))
    assert not read_progress(tmp_path).finished(20)
    (tmp_path / "checkpoints" / "000000000020").mkdir()
    assert read_progress(tmp_path).finished(20)
    assert not read_progress(tmp_path).finished(21)
    # Stopped after its last step, before the evaluation that belongs there.
    write(tmp_path, {"step": 10, "eval/return": 1.0}, {"step": 20})
    assert not read_progress(tmp_path).finished(20)


def test_half_written_checkpoints_do_not_count(tmp_path: Path):
    (tmp_path / "checkpoints" / ".000000000020.abc.tmp").mkdir(parents=True)
    (tmp_path / "checkpoints" / "000000000010.old").mkdir()
    assert read_progress(tmp_path).saved == -1


def test_another_config_is_refused_before_anything_starts(tmp_path: Path):
    config = load_config("debug", overrides={"logdir": str(tmp_path)})
    RunDir.open(config).close()
    path = run_path(config)
    Trial(path, (), config.replace({"steps": 900, "eval.every": 10})).check_same_config()
    with pytest.raises(UserError, match=r"train.batch_size is 4, now 5"):
        Trial(path, (), config.replace({"train.batch_size": 5})).check_same_config()


def test_attempts_are_kept_and_torn_lines_left_out(tmp_path: Path):
    record_attempt(tmp_path, "start", pid=1)
    record_attempt(tmp_path, "end", status=0)
    with (tmp_path / "attempts.jsonl").open("a") as file:
        file.write('{"event": "st')
    found = read_attempts(tmp_path)
    assert [(one["event"], one.get("status")) for one in found] == [("start", None), ("end", 0)]
    assert read_attempts(tmp_path, since=found[-1]["time"] + 1) == []
    assert read_attempts(tmp_path / "none") == []


def test_pipes_and_links_are_not_read(tmp_path: Path, impatient: None):
    names = "metrics.jsonl", "attempts.jsonl"
    (tmp_path / "elsewhere").write_text('{"step": 20, "time": 1.0}\n')
    for put in (os.mkfifo, lambda path: path.symlink_to(tmp_path / "elsewhere")):
        for name in names:
            put(tmp_path / name)
        assert read_progress(tmp_path) == Progress()
        assert read_attempts(tmp_path) == []
        for name in names:
            (tmp_path / name).unlink()
