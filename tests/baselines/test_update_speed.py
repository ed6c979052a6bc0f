"""The benchmark of updates, at debug size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from baselines.benchmark import main, measure, print_results
from dreamer.errors import UserError

TASK = f"{Path(__file__).resolve().parent}/reach_env.py:discrete"


@pytest.mark.slow
def test_agents_are_measured_in_turn_and_refusals_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    mine = tmp_path / "mine.yaml"
    mine.write_text("envs: {num_envs: 3}\na3c: {synchronous: true}\n")
    presets = ["debug", "small", str(mine)]
    results = measure(TASK, ["dqn", "a3c", "d4pg"], presets, rounds=1, shortest=0.0)
    found = results["agents"]
    assert found["dqn"]["seconds"] > 0 and found["dqn"]["records"] == 8
    assert found["a3c"]["seconds"] > 0 and found["a3c"]["records"] == 5 * 3
    assert found["dqn"]["without"] == [str(mine), "small"] and not found["a3c"]["without"]
    assert "d4pg takes continuous actions" in found["d4pg"]["refused"]
    json.dumps(results, allow_nan=False)
    print_results(results)
    assert f"timesteps a second; without {mine}, small\n" in capsys.readouterr().out


def test_what_cannot_be_is_refused_at_once():
    with pytest.raises(UserError, match="--agents random: expected some of dreamer, a3c"):
        main(["--agents", "random"])
    with pytest.raises(UserError, match="--json cannot write"):
        main(["--json", "/nowhere/at/all.json"])
    with pytest.raises(UserError, match="--configs smal fits none of a3c, dqn: unknown preset"):
        main(["--agents", "a3c", "dqn", "--configs", "debug", "smal"])
    with pytest.raises(UserError, match="fits none of dqn: no preset file"):
        main(["--agents", "dqn", "--configs", "/nowhere/at/all.yaml"])
