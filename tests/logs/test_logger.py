"""One record goes to metrics.jsonl, TensorBoard and the terminal, with correct means."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from file_limit import file_limit
from PIL import Image

from dreamer.io.files import DiskFullError
from dreamer.logs.logger import Logger


def make(folder, **settings):
    settings = {"tensorboard": False, "terminal": "plain", "total_steps": 10_000, **settings}
    return Logger(folder, **settings)


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_line_holds_means_counters_and_times(tmp_path):
    with make(tmp_path) as logger:
        logger.scalars({"train/loss": np.float32(1.0), "train/kl": np.array(3)})
        logger.scalars({"train/loss": 2})
        logger.write(1000, updates=np.int64(10), episodes=1)
        logger.scalars({"train/loss": 5.0})
        logger.write(2000, updates=30, episodes=2)
    first, second = records(tmp_path)
    assert first["train/loss"] == 1.5 and first["train/kl"] == 3.0
    assert (first["step"], first["updates"], first["episodes"]) == (1000, 10, 1)
    assert isinstance(first["updates"], int)
    assert second["train/loss"] == 5.0 and "train/kl" not in second
    assert second["fps/updates"] / second["fps/frames"] == pytest.approx(20 / 1000)


def test_values_that_are_not_finite_are_counted_and_left_out(tmp_path):
    with make(tmp_path) as logger:
        for value in (1.0, math.nan, 3.0, math.inf):
            logger.scalars({"loss": value, "gone": -math.inf})
        logger.write(1, best=math.nan, updates=3)
    (record,) = records(tmp_path)
    assert record["loss"] == 2.0 and record["nonfinite/loss"] == 2
    assert "gone" not in record and record["nonfinite/gone"] == 4
    assert "best" not in record and record["nonfinite/best"] == 1


def test_resuming_goes_on_from_the_checkpoint(tmp_path):
    with make(tmp_path) as logger:
        for step in (1000, 2000, 3000):
            logger.write(step)
        assert 0 < logger.wall_time < 1000
    with make(tmp_path) as logger:
        logger.resume(2000, wall_time=5000.0)
        assert 5000 <= logger.wall_time < 6000
        logger.write(2500)
    found = records(tmp_path)
    assert [record["step"] for record in found] == [1000, 2000, 2500]
    assert 5000 <= found[-1]["wall_time"] < 6000


def test_a_torn_line_is_mended_and_said(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    make(tmp_path).close()
    assert [record["step"] for record in records(tmp_path)] == [1]
    assert "1 torn line(s)" in capsys.readouterr().out


def test_videos_are_files_and_events(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (4, 16, 16, 3), np.uint8)
    with make(tmp_path, tensorboard=True) as logger:
        path = logger.video("eval/policy", frames, 1000, fps=20)
    assert path == tmp_path / "videos" / "eval_policy-1000.gif"
    with Image.open(path) as image:
        assert (image.n_frames, image.size, image.info["loop"]) == (4, (64, 64), 0)
    (events,) = tmp_path.glob("events.*")
    assert path.read_bytes() in events.read_bytes()


def test_warnings_become_messages_while_the_logger_is_open(tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        before = warnings.showwarning
        with make(tmp_path):
            warnings.warn("episode x.npz is damaged", stacklevel=1)
        assert warnings.showwarning is before
    assert capsys.readouterr().out == "warning: episode x.npz is damaged\n"


@pytest.mark.parametrize(("limit", "steps"), [(20, [2]), (500, [1, 2])])
def test_without_room_values_are_kept_and_tensorboard_is_given_up(tmp_path, capsys, limit, steps):
    """A line without room is an error; an event is not: the truth is in metrics.jsonl."""
    noise = np.random.default_rng(0).integers(0, 255, (9, 9, 9, 3), np.uint8)
    with make(tmp_path, tensorboard=True) as logger:
        logger.video("noise", noise, 0, 9)
        logger.scalars({"loss": 1.0})
        full = pytest.raises(DiskFullError) if limit == 20 else contextlib.nullcontext()
        with file_limit(limit), full:
            logger.write(1)
        logger.write(2)
    found = records(tmp_path)
    assert [record["step"] for record in found] == steps
    assert found[0]["loss"] == 1.0
    assert ("TensorBoard's file is given up" in capsys.readouterr().out) == (limit == 500)


LOG = """
import sys, time, warnings
from dreamer.logs.logger import Logger
with Logger(sys.argv[1], tensorboard=False, terminal="auto", total_steps=100) as logger:
    for step in range(100):
        logger.scalars({"train/model_loss": step})
        logger.write(step)
        time.sleep(0.005)
"""


@pytest.mark.parametrize("stdout", ["pipe", "closed", "full"])
def test_training_goes_on_when_the_standard_output_goes_away(tmp_path, stdout):
    command = [sys.executable, "-c", LOG, str(tmp_path)]
    redirect = {"pipe": "| head -n 1", "closed": ">&-", "full": ">/dev/full"}[stdout]
    done = subprocess.run(
        ["bash", "-c", f'"$@" {redirect}; exit ${{PIPESTATUS[0]}}', "bash", *command],
        capture_output=True, text=True, env={**os.environ, "PYTHONUNBUFFERED": ""}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(records(tmp_path)) == 100
