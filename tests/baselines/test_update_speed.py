"""The benchmark of updates, at debug size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamer.benchmarks.bench import measure_agents

TASK = f"{Path(__file__).resolve().parent}/reach_env.py:discrete"


@pytest.mark.slow
def test_agents_are_measured_in_turn_and_refusals_told(tmp_path: Path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("envs: {num_envs: 3}\na3c: {synchronous: true}\n")
    presets = ["debug", "small", str(mine)]
    found = measure_agents(TASK, presets, rounds=1, shortest=0.0, agents=["dqn", "a3c", "d4pg"])
    assert found["dqn"]["seconds"] > 0 and found["dqn"]["records"] == 8
    assert found["a3c"]["seconds"] > 0 and found["a3c"]["records"] == 5 * 3
    assert found["dqn"]["without"] == [str(mine), "small"] and not found["a3c"]["without"]
    assert "d4pg takes continuous actions" in found["d4pg"]["refused"]
    json.dumps(found, allow_nan=False)
