"""9. A second run in one directory is refused; a dead run's directory is taken over."""

import os
import socket
from pathlib import Path

import pytest
from fault_runs import Figure, config_for, python, run, words_for

from dreamer.errors import UserError
from dreamer.runs.rundir import RunDir

HOLDER = """
import sys, time
from fault_runs import config_for
from dreamer.runs.rundir import RunDir
with RunDir.open(config_for(sys.argv[1])):
    print("held", flush=True)
    time.sleep(900)
"""


def times(folder: Path) -> dict[Path, int]:
    files = [path for path in folder.rglob("*") if path.is_file() and "lock" not in path.name]
    return {path: path.stat().st_mtime_ns for path in files}


def test_the_second_run_is_refused_and_a_dead_ones_place_is_taken(tmp_path: Path, figure: Figure):
    holder = python("-c", HOLDER, tmp_path)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    before = times(tmp_path)
    status, _, errors = run(words_for(tmp_path), agent="numpy")
    assert status == 2
    who = f"process {holder.pid} on {socket.gethostname()}"
    assert "another run works in" in errors and who in errors
    assert times(tmp_path) == before
    with pytest.raises(UserError, match=str(holder.pid)):
        RunDir.open(config_for(tmp_path))
    holder.kill()
    holder.wait()
    with RunDir.open(config_for(tmp_path)) as taken:
        assert any(who in note for note in taken.notes)
        assert f'"pid": {os.getpid()}' in (taken.path / "lock.json").read_text()
    figure("the second is refused by the first one's pid and host, and may begin once that is dead")
