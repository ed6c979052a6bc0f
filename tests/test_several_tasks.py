"""One agent for two tasks of different action sizes: trained, resumed, evaluated, plotted."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from whole_runs import DEBUG, metrics_of, state_of, train

from dreamer.benchmark import main as benchmark
from dreamer.config.config import load_config
from dreamer.data.episodes import EpisodeFile
from dreamer.errors import UserError
from dreamer.evaluate import main as evaluate
from dreamer.runs.rundir import run_path
from plots.labels import task_title
from plots.runs import find_runs

TASKS = ("dmc_cartpole_balance", "dmc_reacher_easy")
WORDS = ("--task", ",".join(TASKS), *DEBUG[2:], "--envs.tell_task", "true")
RUN = Path("+".join(TASKS), "dreamer_debug", "0")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("several")
    output = train(*WORDS, "--steps", "320", "--logdir", root)
    assert "2 tasks, in turn: dmc_cartpole_balance, dmc_reacher_easy" in output
    assert "encoder takes image, task" in output and "actions 2 continuous" in output
    return root / RUN


@pytest.mark.slow
def test_counters_and_returns_of_each_task(run: Path):
    lines = metrics_of(run)
    assert [line["step"] for line in lines] == [160, 240, 320]
    assert all(line["agent_steps"] * 2 == line["step"] for line in lines)
    assert all(np.isfinite(value) for line in lines for value in line.values())
    for kind, line in [("eval", lines[-1]), ("train", lines[0]), ("train", lines[-1])]:
        each = [line[f"{kind}/{task}/return"] for task in TASKS]
        assert line[f"{kind}/return"] == pytest.approx(np.mean(each))
    assert lines[-1]["eval/episodes"] == 2
    state = state_of(run)
    assert (state["agent_steps"], state["next_episode"], state["eval_episode"]) == (160, 4, 6)


@pytest.mark.slow
def test_episodes_are_of_both_tasks_in_turn(run: Path):
    episodes = [EpisodeFile(path).read() for path in sorted((run / "episodes").iterdir())]
    assert len(episodes) == 4
    for number, episode in enumerate(episodes):
        assert episode["action"].shape == (41, 2) and episode["image"].shape == (41, 64, 64, 3)
        assert (episode["task"] == np.eye(2)[number % 2]).all()
    assert episodes[0]["action"][1:, 1].std() > 0  # the actor's own, though it does nothing


@pytest.mark.slow
def test_it_goes_on_and_refuses_other_tasks(run: Path, tmp_path: Path):
    copy = tmp_path / RUN
    shutil.copytree(run, copy)
    assert "resumed at step 320" in train(*WORDS, "--steps", "400", "--logdir", tmp_path)
    assert [line["step"] for line in metrics_of(copy)] == [160, 240, 320, 400]
    assert {f"eval/{task}/return" for task in TASKS} <= set(metrics_of(copy)[-1])
    # Two episodes are under way, which no file has yet; they are counted all the same.
    assert (state_of(copy)["agent_steps"], len(list((copy / "episodes").iterdir()))) == (200, 4)


@pytest.mark.slow
def test_evaluation_of_each_task(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    report = tmp_path / "out.json"
    assert evaluate(["--run", str(run), "--episodes", "2", "--json", str(report)]) == 0
    result = json.loads(report.read_text(encoding="utf-8"))
    assert [episode["task"] for episode in result["episodes"]] == list(TASKS) * 2
    output = capsys.readouterr().out
    for task in TASKS:
        returns = [e["episode_return"] for e in result["episodes"] if e["task"] == task]
        assert result[f"eval/{task}/return"] == pytest.approx(np.mean(returns))
        mean, std = np.mean(returns), np.std(returns)
        assert f"{task}: return {mean:.1f} +- {std:.1f} over 2 episodes" in output
    assert f"return {result['eval/return']:.1f} +- {result['eval/return_std']:.1f} over 4" in output
    assert "episode 1 of dmc_reacher_easy: return" in output


@pytest.mark.slow
def test_plots_find_the_run(run: Path):
    found = find_runs([run.parents[2]])
    (place,), unknown = found.runs, found.unknown
    assert (place.task, place.method, place.seed) == ("+".join(TASKS), "dreamer_debug", "0")
    assert not unknown and task_title(place.task) == "Cartpole Balance + Reacher Easy"


def test_folders_of_many_tasks():
    def folder(tasks: list[str]) -> str:
        return run_path(load_config(task=",".join(tasks))).parts[-3]

    games = [f"gym_Game{number}-v0" for number in range(40)]
    assert folder(games[:2]) == "gym_Game0-v0+gym_Game1-v0"
    assert len(folder(games)) < 255 and folder(games) != folder(games[:-1])
    assert folder(["gym_Alone-v0"]) == "gym_Alone-v0"


def test_the_benchmark_takes_one():
    with pytest.raises(UserError, match="one task at a time"):
        benchmark(["--task", ",".join(TASKS)])
