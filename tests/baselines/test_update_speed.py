"""The benchmark of updates, at a size that says nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from baselines.benchmark import main, measure, print_results
from dreamer.errors import UserError

TASK = f"{Path(__file__).resolve().parent}/reach_env.py:discrete"


@pytest.mark.slow
def test_agents_are_measured_in_turn_and_refusals_told(capsys: pytest.CaptureFixture[str]):
    results = measure(TASK, ["dqn", "a3c", "d4pg"], ["debug"], rounds=1, shortest=0.0)
    found = results["agents"]
    assert found["dqn"]["seconds"] > 0 and found["dqn"]["records"] == 8
    assert found["a3c"]["seconds"] > 0 and found["a3c"]["records"] == 5
    assert "d4pg takes continuous actions" in found["d4pg"]["refused"]
    json.dumps(results, allow_nan=False)
    print_results(results)
    assert "records a second" in capsys.readouterr().out


def test_what_cannot_be_is_refused_at_once():
    with pytest.raises(UserError, match="--agents random: expected some of dreamer, a3c"):
        main(["--agents", "random"])
    with pytest.raises(UserError, match="--json cannot write"):
        main(["--json", "/nowhere/at/all.json"])
