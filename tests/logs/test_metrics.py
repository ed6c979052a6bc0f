"""metrics.jsonl: whole lines in rising order, nothing deleted."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from file_limit import file_limit

from dreamer.io.files import DiskFullError, StorageError
from dreamer.logs.metrics import MetricsFile, parse_line


def steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_a_torn_last_line_is_set_aside_and_counted(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "a": 2.0}\n{"step": 2, "a": 3\xff')
    metrics = MetricsFile(path)
    assert metrics.torn == 1
    metrics.append({"step": 2})
    metrics.close()
    assert steps(path) == [1, 2]
    assert (tmp_path / "metrics.jsonl.dropped").read_bytes() == b'{"step": 2, "a": 3\xff\n'


def test_a_whole_file_is_not_rewritten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 1}\n')
    inode = path.stat().st_ino
    metrics = MetricsFile(path)
    metrics.rewind(1)
    metrics.close()
    assert path.stat().st_ino == inode and metrics.torn == 0
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def test_later_lines_are_set_aside_and_new_ones_follow(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    for step in (1000, 2000, 2000, 3000, 4000):
        metrics.append({"step": step, "wall_time": step / 10})
    metrics.rewind(2000)
    metrics.append({"step": 2500, "wall_time": 1.0})
    metrics.close()
    assert metrics.torn == 0
    assert steps(path) == [1000, 2000, 2000, 2500]
    assert steps(tmp_path / "metrics.jsonl.dropped") == [3000, 4000]


@pytest.mark.parametrize(
    "line", [b"", b"{}\n", b"[1]\n", b'{"step": 1}', b'{"step": "1"}\n', b"[" * 10**5 + b"\n"]
)
def test_lines_that_are_not_ours_have_no_step(line):
    assert parse_line(line) is None


def test_a_line_without_room_leaves_no_trace_and_later_ones_fit(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    with pytest.raises(ValueError):  # JSON has no infinite numbers
        metrics.append({"step": 1, "loss": float("inf")})
    metrics.append({"step": 1})
    with file_limit(50), pytest.raises(DiskFullError, match=f"no room for {path}"):
        metrics.append({"step": 2, "text": "x" * 100})
    metrics.append({"step": 3})
    metrics.close()
    assert steps(path) == [1, 3]


def test_a_pipe_or_a_link_is_neither_read_nor_written(tmp_path, impatient):
    path = tmp_path / "metrics.jsonl"
    (tmp_path / "elsewhere").write_text("torn")
    for put in (os.mkfifo, lambda path: path.symlink_to(tmp_path / "elsewhere")):
        put(path)
        with pytest.raises(StorageError, match="it is (not a regular file|a link)"):
            MetricsFile(path)
        path.rename(tmp_path / "metrics.jsonl.dropped")  # and where torn lines go
        path.write_text("torn")
        with pytest.raises(StorageError, match="dropped: it is (not a regular file|a link)"):
            MetricsFile(path)
        path.unlink()
        (tmp_path / "metrics.jsonl.dropped").unlink()
    assert (tmp_path / "elsewhere").read_text() == "torn"


def test_without_room_to_rewind_the_file_stays_as_it_was_and_open(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}, "a": 1.0}}\n' for step in range(1000, 5000, 1000)))
    metrics = MetricsFile(path)
    with file_limit(40), pytest.raises(DiskFullError, match=f"no room for {path}"):
        metrics.rewind(2000)
    metrics.append({"step": 5000})
    metrics.close()
    assert steps(path) == [1000, 2000, 3000, 4000, 5000]


def test_a_disk_that_does_not_even_take_the_line_back_is_said(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    full = os.open("/dev/full", os.O_WRONLY)  # writing there finds no room, cutting is refused
    os.dup2(full, metrics._file)
    os.close(full)
    with pytest.raises(DiskFullError, match="no room for .*metrics.jsonl"):
        metrics.append({"step": 1})
    metrics.close()


WRITER = """
import sys
from dreamer.logs.metrics import MetricsFile
metrics = MetricsFile(sys.argv[1])
print("go", flush=True)
step = 0
while True:
    step += 1
    metrics.append({"step": step, "filling": "x" * 5000})
"""


def test_kills_cost_at_most_the_line_being_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    random = np.random.default_rng(0)
    for _ in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None and child.stdout.readline() == "go\n"
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(random.uniform(0.02, 0.1))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        before = path.read_bytes()
        metrics = MetricsFile(path)
        metrics.close()
        after = path.read_bytes()
        assert before.startswith(after) and before[len(after) :].count(b"\n") == 0
        assert metrics.torn <= 1
        for last, this in itertools.pairwise(steps(path)):
            assert this in (1, last + 1)  # each writer begins anew
