"""TensorBoard's own server on a tree of runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from dreamer.logs.logger import Logger

pytestmark = pytest.mark.slow
RUNS = ("dmc_walker_walk/dreamer/0", "dmc_walker_walk/dreamer_horizon=5/0")


def test_it_shows_every_run_of_a_tree(tmp_path: Path):
    for run in RUNS:
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
        while set(tags) != set(RUNS):
            assert time.monotonic() < deadline, tags
            with urllib.request.urlopen(f"{found[1]}/data/plugin/scalars/tags", timeout=60) as got:
                tags = json.load(got)
            time.sleep(0.2)
        assert all("eval/return" in tags[run] for run in RUNS)
    finally:
        server.terminate()
        server.wait(60)
