"""One live holder of a lock; the place of a dead one is free."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dreamer.errors import UserError
from dreamer.runs.lock import Lock, live_holder

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
    name = f"process {holder.pid} on {socket.gethostname()}"
    for _ in range(2):
        with pytest.raises(UserError, match=f"another run works in .*{name}"):
            Lock(tmp_path / "lock")
        assert name in live_holder(tmp_path / "lock")


@pytest.mark.parametrize("until", [os.WEXITED, os.WEXITED | os.WNOWAIT], ids=["gone", "zombie"])
def test_a_killed_holders_lock_is_taken_over(tmp_path, holder, until):
    """Also if nobody asks for its exit status."""
    os.kill(holder.pid, signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, until)
    assert Path(f"/proc/{holder.pid}").exists() == bool(until & os.WNOWAIT)
    assert live_holder(tmp_path / "lock") == ""
    lock = Lock(tmp_path / "lock")
    assert f"process {holder.pid}" in lock.taken_over
    lock.release()


def test_a_killed_containers_lock_does_not_bar_the_next(tmp_path):
    """The next container sees the same file system, but has another host name."""
    code = f"import socket\nsocket.gethostname = lambda: 'elsewhere'\n{HOLD}"
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as container:
        assert container.stdout is not None and container.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {container.pid} on elsewhere") as error:
            Lock(tmp_path / "lock")
        assert "remove" not in str(error.value)
        container.kill()
    assert live_holder(tmp_path / "lock") == ""
    lock = Lock(tmp_path / "lock")
    assert lock.taken_over.startswith(f"process {container.pid} on elsewhere, since")
    lock.release()


def test_a_released_lock_is_free_and_has_no_dead_holder(tmp_path):
    lock = Lock(tmp_path / "lock")
    with pytest.raises(UserError, match=f"process {os.getpid()}"):
        Lock(tmp_path / "lock")
    lock.release()
    lock.release()
    again = Lock(tmp_path / "lock")
    assert again.taken_over == ""
    again.release()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', "\x00" * 100, "[" * 4000, "{}"])
def test_the_note_decides_nothing(tmp_path, holder, content):
    (tmp_path / "lock.json").write_text(content)
    with pytest.raises(UserError, match="another run works in .*: a process that has not"):
        Lock(tmp_path / "lock")
    assert "has not written its name" in live_holder(tmp_path / "lock")
    holder.kill()
    holder.wait()
    lock = Lock(tmp_path / "lock")
    assert lock.taken_over == ""
    lock.release()


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UserError, match="cannot lock .*No locks available; choose a --logdir"):
        Lock(tmp_path / "lock")


def test_without_flock_the_file_itself_is_the_lock(tmp_path, monkeypatch):
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="flock not supported"):
        lock = Lock(tmp_path / "lock")
        with pytest.raises(UserError, match=f"works in .*process {os.getpid()}.*host is gone, rem"):
            Lock(tmp_path / "lock")
    lock.release()
    assert not list(tmp_path.iterdir())


def test_nobody_holds_a_pipe(tmp_path, impatient):
    os.mkfifo(tmp_path / "lock")
    assert live_holder(tmp_path / "lock") == ""


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("content")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match="cannot lock"):
        Lock(tmp_path / "lock")
    (tmp_path / "lock").unlink()
    (tmp_path / "lock.json").symlink_to(tmp_path / "precious")
    Lock(tmp_path / "lock").release()
    assert (tmp_path / "precious").read_text() == "content"
