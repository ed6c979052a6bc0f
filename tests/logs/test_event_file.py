"""TensorBoard reads what is written, and no TensorFlow is needed to write it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dreamer.logs.logger import Logger
from dreamer.logs.sinks import EventFile
from dreamer.logs.video import encode_gif


def read(folder):
    """Reads a folder as TensorBoard does."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    return accumulator.Reload()


def test_scalars_and_videos_come_back(tmp_path):
    gif = encode_gif(np.zeros((3, 8, 12, 3), np.uint8), fps=10)
    events = EventFile(tmp_path)
    events.scalars({"train/loss": 0.5, "eval/return": 10}, 1000)
    events.scalars({"train/loss": 0.25}, 2000)
    events.video("eval/policy", gif, 2000)
    found = read(tmp_path)
    assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [(1000, 0.5), (2000, 0.25)]
    assert [(e.step, e.value) for e in found.Scalars("eval/return")] == [(1000, 10.0)]
    (image,) = found.Images("eval/policy")
    assert (image.step, image.width, image.height) == (2000, 48, 32)
    assert image.encoded_image_string == gif
    events.close()


def test_a_resumed_run_supersedes_later_points(tmp_path):
    first = EventFile(tmp_path)
    for step in (1000, 2000, 3000):
        first.scalars({"loss": float(step)}, step)
    first.close()
    second = EventFile(tmp_path)
    second.resume(2000)
    second.scalars({"loss": 7.0}, 3000)
    second.close()
    found = [(event.step, event.value) for event in read(tmp_path).Scalars("loss")]
    assert found == [(1000, 1000.0), (2000, 2000.0), (3000, 7.0)]


def test_writing_imports_no_tensorflow(tmp_path):
    script = (
        "import sys; from dreamer.logs.logger import Logger\n"
        "with Logger(sys.argv[1], tensorboard=True, terminal='plain', total_steps=10) as logger:\n"
        "    logger.scalars({'loss': 1.0}); logger.write(5)\n"
        "assert not any(name.partition('.')[0] == 'tensorflow' for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1


@pytest.mark.slow
def test_tensorboards_server_shows_every_run_of_a_tree(tmp_path: Path):
    runs = ("dmc_walker_walk/dreamer/0", "dmc_walker_walk/dreamer_horizon=5/0")
    for run in runs:
        (tmp_path / run).mkdir(parents=True)
        with Logger(tmp_path / run, tensorboard=True, terminal="plain", total_steps=9) as logger:
            logger.scalars({"eval/return": 5.0})
            logger.write(3)
    log = tmp_path / "server.log"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path), "--port", "0"]
    with log.open("w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 600
        while not (found := re.search(r"at (http://(\S+?):\d+)/", log.read_text())):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        assert found[2] in ("localhost", "127.0.0.1")
        tags: dict = {}
        while set(tags) != set(runs):
            assert time.monotonic() < deadline, tags
            with urllib.request.urlopen(f"{found[1]}/data/plugin/scalars/tags", timeout=60) as got:
                tags = json.load(got)
            time.sleep(0.2)
        assert all("eval/return" in tags[run] for run in runs)
    finally:
        server.terminate()
        server.wait(60)
