"""One attempt at a trial: real processes that succeed, fail, are orphaned or cancelled.

And what a run's directory tells a sweep.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from whole_runs import ROOT, wait_until

from dreamer.config.config import load_config
from dreamer.errors import UserError
from dreamer.runs.lock import Lock, live_holder
from dreamer.runs.rundir import RunDir, run_path
from dreamer.sweeps.plan import Trial
from dreamer.sweeps.trial import (
    Progress,
    TrialFailedError,
    TrialRefusedError,
    read_attempts,
    read_progress,
    record_attempt,
    run_trial,
    wait_for_lock,
)

PROGRAM = """
import os, sys, time
print("threads", os.environ["TF_NUM_INTRAOP_THREADS"], sys.argv[1:])
if sys.argv[1] == "wait":
    import signal
    def stop(*_):
        open("saved", "w").write("saved")
        sys.exit(143)
    signal.signal(signal.SIGTERM, stop)
    open("ready", "w").write(str(os.getpid()))
    while True:  # a signal just before a long sleep would be handled after it
        time.sleep(0.05)
print("last words", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module `program` in a folder of its own: exits with its argument, or waits for SIGTERM."""
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)  # a user's choice goes first
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    return tmp_path


def run(folder: Path, *words: str) -> str:
    # The child finds the module in its working directory, as `python -m` does.
    return run_trial(str(folder / "run"), ("program", *words), 100, 1.5, str(folder))


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_success_is_logged_and_recorded(program: Path):
    assert run(program, "0", "a b") == "finished"
    log = (program / "run" / "output.log").read_text()
    assert "threads 2 ['0', 'a b']" in log and "last words" in log
    start, end = read_attempts(program / "run")
    assert (start["event"], end["event"], end["status"]) == ("start", "end", 0)


def test_failures_may_be_retried_but_not_a_users_mistake(program: Path):
    with pytest.raises(TrialFailedError, match="exit status 1: last words"):
        run(program, "1")
    with pytest.raises(TrialRefusedError, match="exit status 2: last words"):
        run(program, "2")
    ends = [one for one in read_attempts(program / "run") if one["event"] == "end"]
    assert [end["status"] for end in ends] == [1, 2]


def test_what_is_finished_is_not_run_again(program: Path):
    path = program / "run"
    (path / "checkpoints" / "000000000100").mkdir(parents=True)
    (path / "metrics.jsonl").write_text('{"step": 100, "eval/return": 1}\n')
    assert run(program, "1") == "found finished"
    assert read_attempts(path) == []


# SIGINT as bash leaves it for what a script starts in the background, Ray for one.
ATTEMPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
from dreamer.sweeps.trial import run_trial
run_trial(sys.argv[1] + "/run", ("program", "wait"), 100, 1, sys.argv[1])
"""


@pytest.fixture
def waiting(program: Path):
    """A process in the middle of an attempt, and the pid of the run that it has started."""
    process = subprocess.Popen(
        [sys.executable, "-c", ATTEMPT, str(program)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: (program / "ready").exists() and (program / "ready").read_text() != "")
    yield process, int((program / "ready").read_text())
    process.kill()
    process.communicate()


def test_a_killed_worker_takes_its_run_along_which_saves(program: Path, waiting):
    process, pid = waiting
    process.kill()
    wait_until(lambda: gone(pid))
    assert (program / "saved").exists()


def test_a_killed_guard_takes_the_run_along_which_saves(program: Path, waiting):
    process, pid = waiting
    (start,) = read_attempts(program / "run")
    os.kill(start["pid"], signal.SIGKILL)
    wait_until(lambda: gone(pid))
    assert (program / "saved").exists()
    assert "exit status -9" in process.communicate(timeout=120)[1].splitlines()[-1]


def test_a_cancelled_attempt_ends_once_the_run_has_saved(program: Path, waiting):
    process, pid = waiting
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=120)[1].splitlines()[-1]
    assert (program / "saved").exists() and gone(pid)
    assert read_attempts(program / "run")[-1]["status"] == 143


def test_an_earlier_attempts_process_is_waited_for(tmp_path: Path):
    path = tmp_path / "lock"
    wait_for_lock(path)  # there is none yet
    lock = Lock(path)
    assert f"process {os.getpid()} on " in live_holder(path)
    with pytest.raises(TrialFailedError, match=f"another run works in .*process {os.getpid()}"):
        wait_for_lock(path, seconds=0, sleep=lambda seconds: None)
    wait_for_lock(path, sleep=lambda seconds: lock.release())
    assert live_holder(path) == ""


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
    for half_written in (".000000000020.abc.tmp", "000000000020.old"):
        (tmp_path / "checkpoints" / half_written).mkdir()
    assert read_progress(tmp_path).saved == 10 and not read_progress(tmp_path).finished(20)
    (tmp_path / "checkpoints" / "000000000020").mkdir()
    assert read_progress(tmp_path).finished(20)
    assert not read_progress(tmp_path).finished(21)
    # Stopped after its last step, before the evaluation that belongs there.
    write(tmp_path, {"step": 10, "eval/return": 1.0}, {"step": 20})
    assert not read_progress(tmp_path).finished(20)


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
