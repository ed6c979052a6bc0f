"""One live holder, told apart from dead ones."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dreamer.errors import UserError
from dreamer.runs.lock import SILENCE, Lock, live_holder

HOLD = """
import sys, time
from dreamer.runs.lock import Lock
lock = Lock(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.wait()


def test_a_live_holder_is_named_and_keeps_it(tmp_path, holder):
    for _ in range(2):
        with pytest.raises(UserError, match=f"process {holder.pid} on {socket.gethostname()}"):
            Lock(tmp_path / "lock")


@pytest.mark.parametrize("until", [os.WEXITED, os.WEXITED | os.WNOWAIT], ids=["gone", "zombie"])
def test_a_killed_holders_lock_is_taken_over(tmp_path, holder, until):
    """Also where nobody asks for its exit status."""
    os.kill(holder.pid, signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, until)
    assert Path(f"/proc/{holder.pid}").exists() == bool(until & os.WNOWAIT)
    assert live_holder(tmp_path / "lock") == ""
    lock = Lock(tmp_path / "lock")
    assert f"process {holder.pid}" in lock.taken_over
    lock.release()


def test_released_it_is_free_and_nobody_was_robbed(tmp_path):
    lock = Lock(tmp_path / "lock")
    with pytest.raises(UserError, match=f"process {os.getpid()}"):
        Lock(tmp_path / "lock")
    lock.release()
    lock.release()
    again = Lock(tmp_path / "lock")
    assert again.taken_over == ""
    again.release()


def forge(path, **fields):
    lock = Lock(path)
    record = json.loads(path.read_text())
    lock.release()
    path.write_text(json.dumps({**record, **fields}))


def test_without_the_kernels_help_a_holder_lives_while_its_process_does(tmp_path):
    path = tmp_path / "lock"
    forge(path)
    with pytest.raises(UserError, match="another run"):
        Lock(path)
    # The same number belongs to another process by now.
    forge(tmp_path / "b", process_start=1)
    Lock(tmp_path / "b").release()
    forge(tmp_path / "c", boot="before the machine was started again")
    Lock(tmp_path / "c").release()


def test_a_holder_elsewhere_lives_while_it_touches_the_file(tmp_path):
    path = tmp_path / "lock"
    forge(path, host="elsewhere")
    with pytest.raises(UserError, match="on elsewhere"):
        Lock(path)
    long_ago = time.time() - SILENCE - 10
    os.utime(path, (long_ago, long_ago))
    lock = Lock(path)
    assert "on elsewhere" in lock.taken_over
    lock.release()


@pytest.mark.parametrize("then", [{"host": "elsewhere", "pid": 7}, None], ids=["runs", "ended"])
def test_a_holder_that_was_paused_for_too_long_notices(tmp_path, monkeypatch, then):
    """And leaves the lock to who has taken it over, from another machine."""
    monkeypatch.setattr("dreamer.runs.lock.HEARTBEAT", 0.01)
    path = tmp_path / "lock"
    lock = Lock(path)
    theirs = json.dumps(then) if then else ""
    path.write_text(theirs)
    deadline = time.monotonic() + 30
    while not lock.lost:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert ("process 7 on elsewhere" if then else "a run that has ended") in lock.lost
    touched = path.stat().st_mtime_ns
    time.sleep(0.05)
    lock.release()
    assert (path.read_text(), path.stat().st_mtime_ns) == (theirs, touched)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "1"}', "\x00" * 100, "[" * 4000])
def test_a_record_cut_short_or_foreign_counts_as_none(tmp_path, content):
    (tmp_path / "lock").write_text(content)
    Lock(tmp_path / "lock").release()


def test_nobody_holds_a_pipe(tmp_path, impatient):
    os.mkfifo(tmp_path / "lock")
    assert live_holder(tmp_path / "lock") == ""


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("content")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match="cannot write"):
        Lock(tmp_path / "lock")
    assert (tmp_path / "precious").read_text() == "content"
