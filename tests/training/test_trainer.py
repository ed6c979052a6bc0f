"""The loop, on a quick environment with a quick agent: counters, stops, resumption."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from counting_env import LONGEST
from numpy_agent import NumpyAgent
from whole_runs import ROOT, contents, metrics_of, state_of, wait_until

from dreamer import load_config
from dreamer.config.config import Config
from dreamer.errors import UserError
from dreamer.run import Result
from dreamer.run import train as train_with
from dreamer.runs.checkpoints import Checkpoints
from dreamer.runs.rundir import RunDir, run_path
from dreamer.training.interrupts import StopRequested
from dreamer.training.schedule import UpdateSchedule

# Nothing is a multiple of anything else here, and two environments step together.
VALUES: dict[str, Any] = {
    "steps": 200, "envs.num_envs": 2, "train.prefill": 50, "train.pretrain": 3, "train.every": 30,
    "train.updates": 7, "train.batch_length": 5, "eval.num_envs": 2, "eval.every": 70,
    "eval.episodes": 3, "eval.videos": 0, "eval.save_episodes": True, "log.every": 45,
    "log.terminal": "plain", "log.tensorboard": False, "checkpoint.every": 60,
}
SCHEDULE = UpdateSchedule(prefill=50, pretrain=3, every=30, updates=7)
train = partial(train_with, make_agent=NumpyAgent)


def config_for(logdir: Path, **values: Any) -> Config:
    task = f"{ROOT}/tests/counting_env.py:make"
    return load_config("debug", task=task, overrides={**VALUES, "logdir": str(logdir), **values})


def signal_when(condition: Callable[[], bool], number: int) -> threading.Thread:
    """Sends this process a signal once the condition holds."""

    def work() -> None:
        wait_until(condition)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return train(config_for(tmp_path_factory.mktemp("trained")))


def collected(run: Path) -> int:
    """Agent steps of the complete episodes on disk."""
    return sum(int(path.stem.rpartition("-")[2]) - 1 for path in (run / "episodes").glob("*.npz"))


def test_counters_with_two_environments_and_odd_intervals(trained: Result):
    lines = metrics_of(trained.path)
    steps = [line["step"] for line in lines]
    assert steps == sorted(set(steps)) and steps[0] == 52 and steps[-1] == trained.step == 200
    for line in lines:
        assert line["step"] == 2 * line["agent_steps"]
        assert line["updates"] == SCHEDULE.due(line["step"])
    # Rounds of 30 steps are 15 agent steps, so 16 of two environments: 32 steps.
    assert steps == [52, 84, 116, 148, 180, 200]
    assert trained.updates == SCHEDULE.due(200)


def test_evaluations_are_due_at_multiples_and_at_the_end(trained: Result):
    lines = {line["step"]: line for line in metrics_of(trained.path) if "eval/return" in line}
    assert list(lines) == [52, 84, 148, 200]
    assert trained.eval_return == lines[200]["eval/return"]
    state = state_of(trained.path)
    assert state["done"] == {"log": 200, "evaluate": 200, "video": 200, "save": 200}
    assert state["last_return"] == trained.eval_return
    # New episodes each time, and all of them saved.
    names = sorted(p.name.split("-")[1] for p in (trained.path / "eval_episodes").iterdir())
    assert names == [f"eval{number:08d}" for number in range(3 * len(lines))]


def test_episodes_under_way_are_counted_but_not_stored(trained: Result):
    state = state_of(trained.path)
    stored = collected(trained.path)
    assert stored <= state["agent_steps"] <= stored + 2 * (LONGEST - 1)
    assert metrics_of(trained.path)[-1]["episodes"] == len(contents(trained.path / "episodes"))


def test_a_finished_run_has_nothing_left_to_do(trained: Result):
    before = metrics_of(trained.path)
    again = train(config_for(trained.path.parents[2]))
    assert again == trained
    assert metrics_of(trained.path) == before


def test_a_stop_between_updates_and_more_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(NumpyAgent, "seen", [])
    config = config_for(tmp_path, steps=100_000)
    run = run_path(config)
    thread = signal_when(lambda: len(metrics_of(run)) >= 2, signal.SIGINT)
    with pytest.raises(StopRequested) as stop:
        train(config)
    thread.join()
    assert stop.value.status == 130
    saved = state_of(run)
    seen = metrics_of(run)
    stored = contents(run / "episodes")
    before = len(NumpyAgent.seen)
    steps = 2 * saved["agent_steps"] + 100
    result = train(config.replace({"steps": steps}))
    assert f"resumed at step {2 * saved['agent_steps']}" in capsys.readouterr().out
    lines = metrics_of(run)
    assert lines[: len(seen)] == seen
    assert (result.step, result.updates) == (lines[-1]["step"], SCHEDULE.due(result.step))
    assert steps <= result.step < steps + 4
    assert all(line["updates"] == SCHEDULE.due(line["step"]) for line in lines)
    now = contents(run / "episodes")
    assert all(now[name] == content for name, content in stored.items())
    numbers = [int(name.split("-")[1].removeprefix("s0e")) for name in sorted(now)]
    assert len(set(numbers)) == len(numbers)
    # The agent is told of the updates made, those before the stop included.
    assert 0 < before < len(NumpyAgent.seen) and NumpyAgent.seen[before][0] >= saved["update"] > 0
    assert all(told == made for told, made in NumpyAgent.seen)


def test_a_stop_within_an_evaluation_repeats_it(tmp_path: Path):
    config = config_for(tmp_path, **{"eval.episodes": 10_000})
    run = run_path(config)
    folder = run / "eval_episodes"
    thread = signal_when(lambda: folder.exists() and any(folder.glob("*.npz")), signal.SIGTERM)
    with pytest.raises(StopRequested):
        train(config)
    thread.join()
    assert state_of(run)["done"]["evaluate"] is None
    begun = {path.name.split("-")[1] for path in folder.iterdir()}
    assert 0 < len(begun) < 10_000
    train(config.replace({"eval.episodes": 3, "steps": 60}))
    assert [line["step"] for line in metrics_of(run) if "eval/return" in line][0] == 52
    names = [path.name.split("-")[1] for path in folder.iterdir()]
    assert len(names) == len(set(names)) == len(begun | {f"eval{n:08d}" for n in range(6)})


def test_a_stop_during_prefill(tmp_path: Path):
    config = config_for(tmp_path, **{"train.prefill": 100_000, "steps": 100_000})
    run = run_path(config)
    episodes = run / "episodes"
    thread = signal_when(lambda: episodes.exists() and any(episodes.iterdir()), signal.SIGTERM)
    with pytest.raises(StopRequested):
        train(config)
    thread.join()
    saved = state_of(run)
    assert saved["update"] == 0 and saved["agent_steps"] >= collected(run) > 0


def test_episodes_without_a_checkpoint_count(trained: Result, tmp_path: Path):
    """After a kill before the first checkpoint, their steps are done and their updates due."""
    config = config_for(tmp_path, steps=220)
    run = run_path(config)
    (run / "episodes").mkdir(parents=True)
    for name, content in contents(trained.path / "episodes").items():
        (run / "episodes" / name).write_bytes(content)
    first = 2 * collected(run)
    train(config)
    lines = metrics_of(run)
    assert lines[0]["step"] == first and lines[0]["updates"] == SCHEDULE.due(first)
    names = [name.split("-")[1] for name in sorted(contents(run / "episodes"))]
    assert len(set(names)) == len(names) > len(contents(trained.path / "episodes"))


def test_another_agents_checkpoint_is_the_users_to_move(trained: Result, tmp_path: Path):
    config = config_for(tmp_path)
    checkpoint = Checkpoints(trained.path / "checkpoints").load_latest()
    assert checkpoint is not None
    folder = run_path(config) / "checkpoints"
    arrays = checkpoint.arrays
    for wrong, state in (
        ({**arrays, "mean": arrays["mean"][:1]}, checkpoint.state),
        ({k: v for k, v in arrays.items() if k != "mean"}, checkpoint.state),
        ({k: v for k, v in arrays.items() if k != "policy_calls"}, checkpoint.state),
        (arrays, {k: v for k, v in checkpoint.state.items() if k != "update"}),
    ):
        RunDir.open(config).close()  # as a run that was killed at once would leave it
        path = Checkpoints(folder).save(60, wrong, state)
        with pytest.raises(UserError, match="is not one of this run's") as error:
            train(config)
        assert str(path) in str(error.value)


def test_the_ratio_holds_a_round_later_and_exactly_at_the_end(tmp_path: Path):
    result = train(config_for(tmp_path, **{"train.overlap": True}))
    lines = metrics_of(result.path)
    steps = [line["step"] for line in lines]
    # The same rounds as one after the other.
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
