"""What XLA compiled is kept for the next run, and does no harm where it is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tensorflow as tf
from whole_runs import python

from dreamer.errors import UserError
from dreamer.system import xla_cache
from dreamer.system.xla_cache import FLAGS, cache_folder, first_update, keep_programs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this process, in which it keeps programs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(FLAGS, raising=False)
    keep_programs(os.environ)
    folder = cache_folder(os.environ)
    assert f"_directory={folder} " in os.environ[FLAGS]
    assert folder.parent == tmp_path / "dreamer/xla"
    return folder


def begin(tmp_path: Path) -> dict[str, str]:
    """The variables of a process that begins."""
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    keep_programs(environment)
    return environment


def test_programs_that_worked_stay_and_others_go(folder: Path, tmp_path: Path) -> None:
    with first_update():
        for name in ("sound.pb", "cut.pb", "changed.pb"):
            (folder / name).write_bytes(b"a program")
    (folder / "cut.pb").write_bytes(b"a pro")
    (folder / "changed.pb").write_bytes(b"a Program")
    (folder / "unfinished.pb").write_bytes(b"of a process that was killed")
    assert FLAGS in begin(tmp_path)
    assert {path.name for path in folder.iterdir()} == {"sound.pb", "sound.sha256"}


def test_the_oldest_go_when_there_are_too_many(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with first_update():
        for age in range(4):
            (folder / f"{age}.pb").write_bytes(bytes(100))
            os.utime(folder / f"{age}.pb", (1e9 - age, 1e9 - age))
    monkeypatch.setattr(xla_cache, "MAX_BYTES", 250)
    begin(tmp_path)
    assert sorted(path.name for path in folder.glob("*.pb")) == ["0.pb", "1.pb"]


def test_a_failure_turns_it_off(folder: Path, tmp_path: Path) -> None:
    expected = r"failed: no room.*used no more.*--jit off"
    with pytest.raises(UserError, match=expected), first_update():
        raise tf.errors.InternalError(None, None, "no room\nand more")
    assert begin(tmp_path).keys() == {"XDG_CACHE_HOME"}


def test_too_little_memory_is_no_failure_of_it(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(tf.errors.ResourceExhaustedError), first_update():
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
    assert FLAGS in begin(tmp_path)


def test_a_users_flags_stay(tmp_path: Path) -> None:
    environment = {FLAGS: "--tf_xla_clustering_debug", "XDG_CACHE_HOME": str(tmp_path)}
    keep_programs(environment)
    assert environment[FLAGS] == "--tf_xla_clustering_debug" and not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["a file", "with space/cache"])
def test_a_place_that_cannot_be_used_is_left(place: str, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("no folder")
    assert FLAGS not in begin(tmp_path / place)


def test_machines_and_flags_have_folders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    here = cache_folder({})
    assert here != cache_folder({"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"})
    monkeypatch.setattr(xla_cache, "processor_flags", lambda: "fpu vme")
    assert here != cache_folder({}) and here.is_relative_to(Path.home() / ".cache/dreamer/xla")


@pytest.mark.slow
def test_the_second_process_compiles_nothing(tmp_path: Path) -> None:
    code = """
import os
del os.environ["TF_XLA_FLAGS"]
from dreamer.system.tensorflow import prepare_tensorflow
prepare_tensorflow(jit="on")
import tensorflow as tf
from dreamer.system.xla_cache import first_update
with first_update():
    print(float(tf.function(lambda x: tf.reduce_sum(tf.tanh(x) @ x), jit_compile=True)(tf.eye(3))))
"""
    found = []
    for _ in range(2):
        done = python("-c", code, TF_XLA_FLAGS="", XDG_CACHE_HOME=str(tmp_path))
        assert done.returncode == 0, done.stderr
        (program,) = tmp_path.glob("dreamer/xla/*/*.pb")
        found.append((done.stdout, program.stat().st_mtime_ns, program.stat().st_ino))
    assert found[0] == found[1]
