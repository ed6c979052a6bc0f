"""9. Two runs in one directory are refused; that of a dead one is taken over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_runs import config_for, environ, words_for
from whole_runs import ROOT, finish, start

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


def test_the_second_run_is_refused_and_a_dead_ones_place_is_taken(
    tmp_path: Path, figure: Callable[[str], None]
):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, env=environ(), text=True,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    status, _, errors = finish(start("dreamer.run", *words_for(tmp_path)))
    assert status == 2
    who = f"process {holder.pid} on {socket.gethostname()}"
    assert "another run works in" in errors and who in errors
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert {p: t for p, t in after.items() if "lock" not in p.name} == {
        p: t for p, t in before.items() if "lock" not in p.name
    }
    with pytest.raises(UserError, match=str(holder.pid)):
        RunDir.open(config_for(tmp_path))
    holder.kill()
    holder.wait()
    with RunDir.open(config_for(tmp_path)) as run:
        assert any(who in note for note in run.notes)
        assert f'"pid": {os.getpid()}' in (run.path / "lock.json").read_text()
    figure("the second is refused by the first one's pid and host, and may begin once that is dead")
