"""Files and folders are complete or absent after exceptions, kills and full disks."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from file_limit import file_limit
from ordinary_user import mounted

from dreamer.errors import UserError
from dreamer.io.files import (
    DiskFullError,
    StorageError,
    atomic_folder,
    atomic_write,
    check_writable_file,
    check_writable_folder,
    make_folder,
    open_to_append,
    open_to_read,
    remove_temporaries,
    storage_error,
)
from dreamer.runs.checkpoints import Checkpoints


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "episode.npz"
    for value in (1, 2):
        with atomic_write(path) as file:
            np.savez(file, a=np.full(3, value))
        with np.load(path, allow_pickle=False) as content:
            assert content["a"].tolist() == [value] * 3
    assert names(tmp_path) == ["episode.npz"]


def test_an_error_in_the_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_an_error_about_another_file_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "file"):
        (tmp_path / "elsewhere").read_bytes()
    assert names(tmp_path) == []


def test_a_missing_folder_and_a_folder_in_the_way_are_user_errors(tmp_path):
    missing = pytest.raises(UserError, match=r"absent/file: No such file")
    with missing, atomic_write(tmp_path / "absent" / "file"):
        pass
    (tmp_path / "folder").mkdir()
    in_the_way = pytest.raises(StorageError, match="folder: Is a directory")
    with in_the_way as caught, atomic_write(tmp_path / "folder"):
        pass
    assert caught.value.status == 74


def test_folder_is_exchanged_as_a_whole(tmp_path):
    path = tmp_path / "folder"
    for name in ("first", "second"):
        with atomic_folder(path) as folder:
            (folder / name).write_text(name)
    assert names(path) == ["second"]
    with pytest.raises(ZeroDivisionError), atomic_folder(path) as folder:
        (folder / "third").write_text("")
        raise ZeroDivisionError
    assert names(path) == ["second"]
    assert names(tmp_path) == ["folder"]


def test_no_room_is_said_with_path_and_size_and_leaves_the_old_file(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    texts = {123456: "123,456 bytes and files may have 4,096 .*ulimit -f", None: "least [14]"}
    for needed, text in texts.items():
        full = pytest.raises(DiskFullError, match=f"no room for {tmp_path}/file: .*{text}")
        with file_limit(4096), full, atomic_write(tmp_path / "file", needed) as file:
            file.write(bytes(100_000))
    full = pytest.raises(DiskFullError, match=f"no room for {tmp_path}/checkpoint: .* 4,096 bytes")
    with file_limit(4096), full, atomic_folder(tmp_path / "checkpoint") as folder:
        (folder / "part").write_bytes(bytes(100_000))
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_really_full_disk_is_said_with_what_is_free(tmp_path):
    with mounted(tmp_path, "size=64k"):
        full = pytest.raises(DiskFullError, match="at least 200,000 bytes and 65,536 are free")
        with full, atomic_write(tmp_path / "file", needed=200_000) as file:
            file.write(bytes(200_000))
        assert names(tmp_path) == []


def test_a_disk_that_is_read_only_now_is_said(tmp_path):
    with mounted(tmp_path, "ro"):
        for write in (
            lambda: atomic_write(tmp_path / "file").__enter__(),
            lambda: atomic_folder(tmp_path / "folder").__enter__(),
            lambda: Checkpoints(tmp_path).save(1, {"a": np.zeros(3)}, {}),
            lambda: make_folder(tmp_path / "a" / "b"),
            lambda: open_to_append(tmp_path / "file"),
        ):
            with pytest.raises(StorageError, match="Read-only file system") as caught:
                write()
            assert caught.value.status == 74


def test_nothing_but_regular_files_is_opened(tmp_path, impatient):
    (tmp_path / "file").write_text("content")
    for name, target in (("link", tmp_path / "file"), ("chain", "link"), ("nowhere", "absent")):
        (tmp_path / name).symlink_to(target)
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "read pipe")
    reader = os.open(tmp_path / "read pipe", os.O_RDONLY | os.O_NONBLOCK)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    before = names(tmp_path)
    for name in ("link", "chain", "nowhere", "pipe", "read pipe", "socket", "/dev/zero"):
        reason = "not a regular file|it is a link, which is not followed"
        with pytest.raises(OSError, match=reason):
            open_to_read(tmp_path / name)
        with pytest.raises(StorageError, match=f"cannot write {tmp_path / name}: .*({reason})"):
            open_to_append(tmp_path / name)
    os.close(reader)
    assert names(tmp_path) == before and (tmp_path / "file").read_text() == "content"
    with open(open_to_read(tmp_path / "file"), "rb") as file:
        assert file.read() == b"content"
    (tmp_path / "folder").symlink_to(tmp_path)  # a link that a user may set
    os.close(open_to_read(tmp_path / "folder" / "file"))


def test_a_path_is_checked_without_making_it(tmp_path):
    check_writable_folder(tmp_path / "a" / "b", "advice")
    check_writable_file(tmp_path / "a.json", "--json")
    assert names(tmp_path) == []
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for folder in (tmp_path / "link", tmp_path / "link" / "b"):
        with pytest.raises(UserError, match=f"cannot make {folder}: .*link is no folder; advice"):
            check_writable_folder(folder, "advice")
    for path in (tmp_path, tmp_path / "absent" / "a.json"):
        with pytest.raises(UserError, match=f"--json cannot write {path}; expected a file in a"):
            check_writable_file(path, "--json")


def test_what_is_half_removed_is_not_taken_for_whole(tmp_path, monkeypatch):
    store = Checkpoints(tmp_path, keep=1)
    store.save(1, {"a": np.zeros(3)}, {})

    def interrupted(path: Path, **options: bool) -> None:
        if (path / "manifest.json").exists():
            (path / "manifest.json").unlink()
            raise KeyboardInterrupt

    for step in (1, 2):  # one is replaced, one is pruned
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(shutil, "rmtree", interrupted)
            store.save(step, {"a": np.ones(3)}, {})
        named = [path for path in tmp_path.iterdir() if not path.name.endswith(".tmp")]
        assert [path.name for path in named] == [f"{step:012d}"]
        assert all((path / "manifest.json").exists() for path in named)


def test_errors_of_other_kinds_are_not_taken_for_a_full_disk(tmp_path):
    failing, busy = OSError(errno.EIO, "failing"), OSError(errno.EBUSY, "busy", "elsewhere")
    assert type(storage_error(failing, tmp_path / "a", 1)) is StorageError
    assert storage_error(busy, tmp_path / "a", 1) is busy


HALF = """
import os, sys, time
from dreamer.io.files import atomic_folder, atomic_write
with atomic_write(sys.argv[1] + "/file") as file, atomic_folder(sys.argv[1] + "/folder") as folder:
    file.write(bytes(10_000_000))
    (folder / "part").write_bytes(bytes(1000))
    print("half", flush=True)
    time.sleep(60)
"""


def test_a_kill_leaves_the_old_content_and_hidden_remains_that_can_be_removed(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    child = subprocess.Popen(
        [sys.executable, "-c", HALF, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "half\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert len(names(tmp_path)) == 3
    remove_temporaries(tmp_path)
    assert names(tmp_path) == ["file"]
