"""Exit statuses where nothing can be written: /dev/full is a file on a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAIN = "from dreamer.config.command_line import run_main\n"
PROGRAM = """
import sys
from dreamer.config.command_line import run_main
from dreamer.errors import EnvError, UserError
from dreamer.io.files import DiskFullError
from dreamer.training.interrupts import StopRequested
from dreamer.run import Result, finish

def full_disk(config): raise DiskFullError("no room")
def dead_worker(config): raise EnvError(0, "died", "of something")
def terminated(config): raise StopRequested(15)
def whole(config): return Result("somewhere", 1, 1, None)

def main(argv):
    if argv[0] == "full_disk":
        sys.stdout.write("still in a buffer")
    return finish(None, globals()[argv[0]])

run_main(main)
"""
ENDS = {"full_disk": 74, "dead_worker": 70, "terminated": 143, "whole": 0}


def status(how: str, *, buffered: bool) -> int:
    environment = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    with open("/dev/full", "w", encoding="ascii") as full:
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, how],
            cwd=ROOT, env=environment, stdout=full, stderr=full, timeout=120, check=False,
        ).returncode  # fmt: skip


@pytest.mark.parametrize("how", ENDS)
def test_a_runs_exit_status_stands_on_a_full_disk(how: str):
    assert status(how, buffered=True) == ENDS[how]


def test_nor_does_output_without_a_buffer_change_it():
    assert status("terminated", buffered=False) == 143


def test_a_result_that_could_not_be_written_is_no_success():
    code = f"{MAIN}run_main(lambda argv: print('a result'))"
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stdout=full, stderr=subprocess.DEVNULL,
            timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode != 0


def test_a_reader_that_has_seen_enough_is_no_failure():
    code = f"{MAIN}run_main(lambda argv: print('a line\\n' * 99_999))"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 0
