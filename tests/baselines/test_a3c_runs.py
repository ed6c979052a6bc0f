"""A3C as a run: processes that share parameters, their failures, stopping and resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from whole_runs import metrics_of, state_of

from baselines.a3c.rounds import LearnerError
from baselines.run import train
from dreamer.config.config import Config, load_config
from dreamer.errors import EnvError
from dreamer.training.interrupts import Interrupt, StopRequested
from dreamer.training.trainer import NonFiniteError

HERE = Path(__file__).resolve().parent


def config_for(logdir: Path, **values: Any) -> Config:
    quick = {
        "steps": 300, "train.every": 60, "eval.every": 150, "eval.episodes": 2, "eval.videos": 0,
        "log.every": 60, "log.terminal": "plain", "log.tensorboard": False,
        "checkpoint.every": 60, "envs.time_limit": 0, "logdir": str(logdir),
    }  # fmt: skip
    task = f"{HERE}/reach_env.py:{values.pop('maker', 'continuous')}"
    return load_config("debug", task=task, overrides={**quick, **values}, agent="a3c")


@pytest.mark.slow
def test_processes_share_what_they_learn_and_stop_and_go_on(tmp_path: Path):
    config = config_for(tmp_path, steps=100_000)

    def stop_late(interrupt: Interrupt) -> None:
        if any(len(metrics_of(path.parent)) > 3 for path in tmp_path.rglob("metrics.jsonl")):
            raise StopRequested(15)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopRequested):
        patch.setattr(Interrupt, "check", stop_late)
        train(config)
    (run,) = (path.parent for path in tmp_path.rglob("metrics.jsonl"))
    assert run.parent.name == "a3c_debug"
    lines, saved = metrics_of(run), state_of(run)
    assert "train/return" in lines[-1] and np.isfinite(lines[-1]["model/value_loss"])
    newest = max((run / "checkpoints").iterdir())
    with np.load(newest / "arrays.npz") as arrays:
        assert (arrays["updates"] > 0).all()  # both learnt
        assert arrays["steps"].sum() == saved["agent_steps"]
        assert arrays["updates"].sum() == saved["update"]
    steps = saved["agent_steps"] + 100
    result = train(config.replace({"steps": steps}))
    assert steps <= result.step <= steps + 10  # each learner ends its rollout of five
    assert result.updates > saved["update"]
    assert metrics_of(run)[: len(lines)] == lines


@pytest.mark.parametrize(
    ("maker", "learners", "error", "text"),
    [("failing", 2, EnvError, "third episode's fourth step"),
     ("killing", 1, LearnerError, "actor-learner 0 died: killed by SIGKILL")],
)  # fmt: skip
def test_a_failure_beyond_mending_leaves_a_saved_run(
    maker: str, learners: int, error: type[EnvError], text: str, tmp_path: Path
):
    values = {"envs.restarts": 0, "envs.num_envs": learners, "eval.every": 100_000}
    config = config_for(tmp_path, maker=maker, steps=100_000, **values)
    with pytest.raises(error, match=text) as caught:
        train(config)
    assert type(caught.value) is error and caught.value.status == 70
    (run,) = (path.parent for path in tmp_path.rglob("metrics.jsonl"))
    saved = state_of(run)
    newest = max((run / "checkpoints").iterdir())
    with np.load(newest / "arrays.npz") as arrays:
        # The one that failed took two episodes and three steps; the other has paused.
        assert saved["agent_steps"] == arrays["steps"].sum() >= 20
        assert saved["update"] == arrays["updates"].sum() > 0


@pytest.mark.parametrize(
    "synchronous", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["one", "processes"]
)
def test_updates_that_are_not_finite_are_counted_and_end_the_run(
    synchronous: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    values = {"a3c.synchronous": synchronous, "train.nonfinite_limit": 2}
    with pytest.raises(NonFiniteError, match="updates in a row were not finite"):
        train(config_for(tmp_path, maker="huge", **values))
    (run,) = (path.parent for path in tmp_path.rglob("metrics.jsonl"))
    kept = sorted((run / "nonfinite").iterdir())
    with np.load(kept[0]) as rollout:
        assert rollout["reward"].shape[0] == 6 and np.abs(rollout["reward"]).max() > 1e38
    said = capsys.readouterr().out
    assert "was not finite" in said
    assert synchronous or "\nstarting actor-learners, 2 processes\n" in said


def test_one_learner_goes_on_and_says_that_it_is_not_bit_for_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    values = {"a3c.synchronous": True, "deterministic": True, "eval.every": 100_000}
    config = config_for(tmp_path, steps=60, **values)
    first = train(config)
    said = capsys.readouterr().out
    assert "not bit for bit" not in said and "\nlearning, 60 steps\n" in said
    result = train(config.replace({"steps": 80}))
    assert result.step >= 80 and result.updates > first.updates
    assert "the resumed run is not bit for bit the same: a3c begins new" in capsys.readouterr().out
