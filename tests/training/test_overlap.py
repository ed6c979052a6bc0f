"""Collecting beside updates: nothing is lost, the ratio holds, errors and stops come through."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from test_trainer import SCHEDULE, collected, config_for, train
from whole_runs import metrics_of, state_of

from dreamer.config.config import load_config
from dreamer.errors import UserError
from dreamer.training.overlap import AbandonedError, Background, Lag

TIMESTEPS = {"reward": np.zeros(1)}


def acting(timesteps, state):
    return np.zeros((1, 2)), state


def test_the_ratio_holds_a_round_later_and_exactly_at_the_end(tmp_path: Path):
    result = train(config_for(tmp_path, **{"train.overlap": True}))
    lines = metrics_of(result.path)
    steps = [line["step"] for line in lines]
    # The same rounds as one after the other; see test_trainer.
    assert steps == [52, 84, 116, 148, 180, 200]
    updates = [line["updates"] for line in lines]
    due = [SCHEDULE.due(step) for step in steps]
    assert updates == [due[0], due[0], *due[1:4], due[5]]
    assert result.updates == SCHEDULE.due(200)
    lagged = [line for line in lines if "overlap/lag" in line]
    assert len(lagged) == 5
    for before, line in zip(due, lagged, strict=False):
        assert 0 <= line["overlap/lag"] <= line["overlap/lag_max"] <= before
    # In the first round nothing is left to be made; later at most the updates of one.
    assert lagged[0]["overlap/lag_max"] == 0
    most = max(after - before for before, after in zip(due, due[1:], strict=False))
    assert max(line["overlap/lag_max"] for line in lagged) <= most
    assert collected(result.path) <= state_of(result.path)["agent_steps"] == 100
    assert lines[-1]["episodes"] == len(list((result.path / "episodes").glob("*.npz"))) > 0


@pytest.mark.slow
def test_a_stopped_run_makes_up_for_its_updates(tmp_path: Path):
    first = train(config_for(tmp_path, steps=116, **{"train.overlap": True}))
    state = state_of(first.path)
    assert state["update"] == SCHEDULE.due(116)
    result = train(config_for(tmp_path, steps=200, **{"train.overlap": True}))
    assert (result.step, result.updates) == (200, SCHEDULE.due(200))
    names = [path.name.split("-")[1] for path in (result.path / "episodes").glob("*.npz")]
    assert len(set(names)) == len(names)


def test_both_go_on_at_once():
    """Each side waits for the other: one after the other would never end."""
    seen, answered = threading.Event(), threading.Event()

    def work(leaving):
        seen.set()
        assert answered.wait(120)

    with Background(work):
        assert seen.wait(120)
        answered.set()


def test_an_error_in_the_background_comes_after_the_block():
    made = []

    def work(leaving):
        raise OSError("the environment is gone")

    with pytest.raises(OSError, match="is gone"), Background(work):
        made.append("updates")
    assert made == ["updates"]


def test_an_error_in_the_block_ends_the_background_and_goes_first():
    ended = []

    def work(leaving):
        policy = leaving(acting)
        try:
            while True:
                policy(TIMESTEPS, None)
        except AbandonedError as error:
            ended.append(error)
            raise

    with pytest.raises(ZeroDivisionError), Background(work):
        raise ZeroDivisionError
    assert len(ended) == 1 and threading.active_count() >= 1


def test_lag_is_what_is_due_less_what_is_made():
    made = [3, 3, 5]
    lag = Lag(5, lambda: made.pop(0))
    assert lag.scalars() == {}
    policy = lag.measure(acting)
    for _ in range(3):
        action, state = policy(TIMESTEPS, "state")
        assert action.shape == (1, 2) and state == "state"
    assert lag.scalars() == {"overlap/lag": 4 / 3, "overlap/lag_max": 2.0}


def test_not_together_with_deterministic():
    with pytest.raises(UserError, match="train.overlap and deterministic are both true"):
        load_config("debug", overrides={"train.overlap": True, "deterministic": True})


