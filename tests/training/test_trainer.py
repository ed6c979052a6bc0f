"""The loop, on a quick environment with a quick agent: counters, stops, resumption."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counting_env import LONGEST
from numpy_agent import NumpyAgent
from whole_runs import ROOT, contents, metrics_of, state_of, wait_until

from dreamer import load_config
from dreamer.analysis.trained_run import find_checkpoint
from dreamer.config.config import Config
from dreamer.errors import UserError
from dreamer.evaluate import evaluate
from dreamer.logs.terminal import Phase, PlainTerminal
from dreamer.run import Result
from dreamer.run import train as train_with
from dreamer.runs.checkpoints import Checkpoints
from dreamer.runs.rundir import RunDir, run_path
from dreamer.training.callbacks import Callback, Training
from dreamer.training.interrupts import StopRequested
from dreamer.training.schedule import UpdateSchedule
from dreamer.training.trainer import NonFiniteError, NonFiniteGuard, ReturnGuard

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


def test_what_the_run_does_is_shown_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shown: list[tuple[Phase, int | None, float | None]] = []
    monkeypatch.setattr(PlainTerminal, "progress", lambda self, *values: shown.append(values))
    train(config_for(tmp_path, **{"train.pretrain": 10}))
    phases = [phase for phase, _, _ in shown]
    assert list(dict.fromkeys(phase.name for phase in phases)) == [
        "loading TensorFlow", "building the networks", "random actions", "compiling the update",
        "learning", "evaluating", "writing videos", "collecting",
    ]  # fmt: skip
    steps = [step for _, step, _ in shown if step is not None]
    assert list(dict.fromkeys(steps)) == list(range(0, 201, 4))  # each step of two environments
    assert Phase("random actions", 24, 50, "steps") in phases
    assert Phase("learning", 10, 10, "updates") in phases
    assert phases.count(Phase("evaluating", 3, 3, "episodes")) == 4
    # The time left is known from the sixth update on, and not before.
    known = [eta is not None for phase, _, eta in shown if phase.unit in ("steps", "updates")]
    counted = [phase for phase in phases if phase.unit in ("steps", "updates")]
    first = counted.index(Phase("learning", 6, 10, "updates"))
    assert not any(known[:first]) and all(known[first:])


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


def test_the_best_checkpoint_is_kept_beside_the_newest(trained: Result):
    lines = [line for line in metrics_of(trained.path) if "eval/return" in line]
    returns = {line["step"]: line["eval/return"] for line in lines}
    best = max(returns, key=lambda step: (returns[step], step))
    kept = Checkpoints(trained.path / "best").steps()
    assert list(kept) == [best]
    assert Checkpoints.load(kept[best]).state["last_return"] == returns[best]
    rundir, newest = RunDir.load(trained.path)[0], trained.path / "checkpoints" / f"{200:012d}"
    for chosen in ("200", 200, "2e2", newest, str(newest)):
        assert find_checkpoint(rundir, chosen) == newest
    for chosen, folder in (("best", rundir.best), ("latest", rundir.checkpoints)):
        found = find_checkpoint(rundir, chosen)
        assert isinstance(found, Checkpoints) and found.directory == folder
    for chosen, message in (("7", "of step 7; there are .*200"), ("bst", "expected best")):
        with pytest.raises(UserError, match=message):
            find_checkpoint(rundir, chosen)
    task = str(RunDir.load(trained.path)[1].task)
    result = evaluate(
        trained.path, episodes=1, checkpoint="best", task=task, make_agent=NumpyAgent
    )
    assert (result.step, result.checkpoint) == (best, kept[best])


def test_a_better_checkpoint_than_the_resumed_one_stays_and_a_damaged_one_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """As after a kill between an evaluation and the next checkpoint."""
    result = train(config_for(tmp_path, steps=60))
    best = Checkpoints(result.path / "best")
    state = {**state_of(result.path), "last_return": 1e9}
    (arrays,) = (Checkpoints.load(path).arrays for path in best.steps().values())
    best.replace_all(999, arrays, state)
    train(config_for(tmp_path, steps=90))
    assert list(best.steps()) == [999]
    (result.path / "best" / f"{999:012d}" / "arrays.npz").write_bytes(b"nonsense")
    train(config_for(tmp_path, steps=120))
    assert list(best.steps()) == [120]
    assert "is damaged" in capsys.readouterr().out


def test_learning_from_stored_episodes_alone(trained: Result, tmp_path: Path):
    stored = contents(trained.path / "episodes")
    values = {
        "train.offline": True, "replay.directory": str(trained.path), "train.prefill": 5000,
        "deterministic": True,
    }  # fmt: skip
    result = train(config_for(tmp_path, steps=150, **values))
    assert (result.step, result.updates) == (150, SCHEDULE.pretrain + 150 * 7 // 30)
    assert not contents(result.path / "episodes")
    lines = metrics_of(result.path)
    assert [line["step"] for line in lines if "eval/return" in line] == [0, 90, 150]
    assert all(line["episodes"] == len(stored) for line in lines)
    assert not any("fps/collect" in line or "train/return" in line for line in lines)
    longer = train(config_for(tmp_path, steps=200, **values))
    at_once = train(config_for(tmp_path / "at once", steps=200, **values))
    assert longer.updates == at_once.updates == SCHEDULE.pretrain + 200 * 7 // 30
    arrays = [
        Checkpoints.load(Checkpoints(run.path / "checkpoints").steps()[200]).arrays["mean"]
        for run in (longer, at_once)
    ]
    assert arrays[0].tolist() == arrays[1].tolist() and arrays[0].any()
    assert contents(trained.path / "episodes") == stored
    values["replay.directory"] = ""
    with pytest.raises(UserError, match="stored episodes alone, but .* holds none; name a folder"):
        train(config_for(tmp_path / "none", **values))


def test_ratio_and_number_of_environments_may_change_on_resumption(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    first = train(config_for(tmp_path, steps=110))
    values = {"train.updates": 60, "envs.num_envs": 3, "train.batch_size": 2}
    second = train(config_for(tmp_path, steps=200, **values))
    assert "changed from step" in capsys.readouterr().out
    assert second.updates == first.updates + (second.step - first.step) * 60 // 30
    third = train(config_for(tmp_path, steps=260, **values))
    assert third.updates == first.updates + (third.step - first.step) * 60 // 30


@pytest.mark.parametrize(("precision", "named"), [("float16", True), ("float32", False)])
def test_values_too_large_for_float16_are_named(precision: str, named: bool, tmp_path: Path):
    said: list[str] = []
    guard = NonFiniteGuard(tmp_path, 1, said.append, precision)
    batch = {"height": np.full((1, 2), -1e6, np.float32), "speed": np.ones((1, 2), np.float32)}
    with pytest.raises(NonFiniteError) as error:
        guard.check(0, batch, {"nonfinite": 1.0, "loss": np.inf})
    text = "height reaches 1e+06, but float16 holds at most 65,504: scale it"
    assert (text in said[0]) == (text in str(error.value)) == named
    assert "speed" not in said[0] and "(loss inf" in said[0]


def test_a_finished_run_has_nothing_left_to_do(
    trained: Result, capsys: pytest.CaptureFixture[str]
):
    before = metrics_of(trained.path)
    again = train(config_for(trained.path.parents[2]))
    assert again == trained
    assert metrics_of(trained.path) == before
    assert "beyond" not in capsys.readouterr().out
    train(config_for(trained.path.parents[2], steps=100))
    printed = capsys.readouterr().out
    assert "is at step 200 already, beyond steps (100), so nothing is left to train" in printed
    assert "(100.0%)" in printed and "(200.0%)" not in printed


def test_a_run_without_its_checkpoints_says_that_the_agent_begins_anew(
    trained: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = tmp_path / trained.path.relative_to(trained.path.parents[2])
    shutil.copytree(trained.path, run)
    shutil.rmtree(run / "checkpoints")
    train(config_for(tmp_path))
    assert "warning: there is no checkpoint in" in capsys.readouterr().out


@pytest.mark.parametrize(("reward", "imagined", "squash", "warned"), [
    (1.0, 2349.0, False, True), (1.0, 150.0, False, False), (30.0, 2349.0, False, False),
    (30.0, 2349.0, True, True), (0.0, 50.0, False, False), (0.001, 5.0, False, False),
])  # fmt: skip
def test_imagined_returns_beyond_what_rewards_allow_are_said_once(
    reward: float, imagined: float, squash: bool, warned: bool
):
    said: list[str] = []
    guard = ReturnGuard(0.99, squash, said.append)
    batch = {"reward": np.array([[0.0, -reward]], np.float32)}
    for _ in range(9):
        guard.check(batch, {"model/imagined_return": -imagined})
    guard.check(batch, {"model/imagined_return": 0.5})  # once in between: counting begins anew
    assert not said
    for _ in range(30):
        guard.check(batch, {"model/imagined_return": -imagined})
    assert len(said) == warned
    assert not warned or "returns of 2,349 on average, but the rewards so far, at most " in said[0]


class Boastful(NumpyAgent):
    """Claims to imagine far larger returns than its rewards, of at most 1, allow."""

    def train_step(self, batch: Any, update: int) -> Any:
        return {**super().train_step(batch, update), "imagined_return": 1e9}


def test_a_run_with_impossible_imagined_returns_warns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for method, transform, warned in (("raw", "none", 1), ("scaled", "normalize", 0)):
        values = {"method": method, "reward.transform": transform}
        train_with(config_for(tmp_path, **values), make_agent=Boastful)
        said = capsys.readouterr().out
        assert said.count("warning: the agent imagines returns of 1,000,000") == warned


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


class Witness(Callback):
    """Notes what it is told, and stops the training at its second evaluation."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.values: dict[str, Any] = {}

    def note(self, name: str, training: Training, value: Any) -> None:
        self.calls.append((name, training.step))
        self.values[name] = value

    def on_start(self, training: Training) -> None:
        self.note("start", training, training.path)

    def on_episode(self, training: Training, episode: Any) -> None:
        self.note("episode", training, episode)

    def on_update(self, training: Training, metrics: Any) -> None:
        self.note("update", training, metrics)
        assert training.update == [name for name, _ in self.calls].count("update")

    def on_evaluation(self, training: Training, results: Any) -> None:
        self.note("evaluation", training, results)
        if [name for name, _ in self.calls].count("evaluation") == 2:
            training.stop()

    def on_checkpoint(self, training: Training, path: Path) -> None:
        self.note("checkpoint", training, path)

    def on_end(self, training: Training) -> None:
        self.note("end", training, training.update)


def test_callbacks_are_told_what_happens_and_may_end_the_training(trained: Result, tmp_path: Path):
    witness = Witness()
    result = train(config_for(tmp_path), callbacks=[Callback(), witness])
    names = [name for name, _ in witness.calls]
    assert (names[0], names[-1]) == ("start", "end") and witness.values["start"] == result.path
    # The same lines as without callbacks, as far as they go.
    evaluated = [line["step"] for line in metrics_of(trained.path) if "eval/return" in line]
    told = [step for name, step in witness.calls if name == "evaluation"]
    assert told[:2] == evaluated[:2] and told[2:] == [result.step] and result.step < 200
    assert witness.values["evaluation"]["eval/return"] == result.eval_return
    assert names.count("episode") == len(list((result.path / "episodes").iterdir()))
    assert {"reward", "action", "is_last"} <= set(witness.values["episode"])
    assert witness.values["end"] == result.updates == names.count("update")
    assert all(key.startswith("model/") for key in witness.values["update"])
    assert witness.values["checkpoint"] == max((result.path / "checkpoints").iterdir())
    again = train(config_for(tmp_path))  # goes on to the config's end
    assert (again.step, again.updates) == (trained.step, trained.updates)
