"""Evaluation of a run from the command line."""

import itertools
import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy_agent import NumpyAgent
from PIL import Image
from whole_runs import ROOT, DebugRuns, contents, finish, start

from dreamer.config.config import load_config
from dreamer.errors import UserError
from dreamer.evaluate import evaluate, main
from dreamer.run import train
from dreamer.training.build import make_agent

ENVS = ROOT / "tests" / "envs" / "real_envs.py"


def test_from_the_command_line(debug_runs: DebugRuns, tmp_path: Path):
    video, report = tmp_path / "out.gif", tmp_path / "out.json"
    before = {path: contents(path) for path in (debug_runs.path, debug_runs.path / "checkpoints")}
    words = ("--run", debug_runs.path, "--episodes", "3", "--video", video, "--json", report)
    status, output, errors = finish(start("dreamer.evaluate", *words))
    assert status == 0, errors
    result = json.loads(report.read_text(encoding="utf-8"))
    returns = [episode["episode_return"] for episode in result["episodes"]]
    assert len(returns) == 3 and len(set(returns)) == 3
    mean, std = float(np.mean(returns)), float(np.std(returns))
    assert result["eval/return"] == pytest.approx(mean, abs=1e-9)
    assert result["eval/return_std"] == pytest.approx(std, abs=1e-9)
    assert (result["step"], result["task"]) == (400, "dmc_cartpole_balance")
    assert f"return {mean:.1f} +- {std:.1f} over 3 episodes" in output
    for number, value in enumerate(returns):
        assert f"episode {number}: return {value:.1f} in 80 steps, at the time limit" in output
    with Image.open(video) as gif:
        # Three episodes in a square of four, enlarged fourfold; 40 steps and the first timestep.
        assert (gif.size, gif.n_frames) == ((512, 512), 41)
        gif.seek(40)
        last = np.asarray(gif.convert("RGB"))
    assert last[:256].std() > 10 and not last[256:, 256:].any()
    assert {path: contents(path) for path in before} == before  # it only reads


def test_from_python_with_a_seed_and_a_checkpoint_of_choice(debug_runs: DebugRuns):
    older = debug_runs.path / "checkpoints" / "000000000240"
    result = evaluate(debug_runs.path, episodes=1, video_episodes=1, seed=5, checkpoint=older)
    assert (result.step, result.seed, result.checkpoint) == (240, 5, older)
    assert result.evaluation.shown[0]["image"].shape == (41, 64, 64, 3)
    # The run's newest checkpoint and seed by default; the same again, the same returns.
    newest = evaluate(debug_runs.path, episodes=2)
    assert (newest.step, newest.seed) == (400, 0) and newest.evaluation.shown == []
    again = evaluate(debug_runs.path, episodes=1, seed=0)
    assert newest.evaluation.returns[:1] == again.evaluation.returns
    assert newest.evaluation.returns[0] != result.evaluation.returns[0]


def test_damaged_checkpoints(run: Path, capsys: pytest.CaptureFixture[str]):
    newest = run / "checkpoints" / "000000000400"
    (newest / "arrays.npz").write_bytes(b"nonsense")
    assert main(["--run", str(run), "--episodes", "1"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith(f"loading {run} and its environments\n")
    assert captured.err.endswith("running 1 episode(s)\n")
    assert "after 240 steps" in captured.out
    assert f"warning: checkpoint {newest} is damaged" in captured.err
    with pytest.raises(UserError, match="000000000400 is damaged"):
        evaluate(run, checkpoint=newest)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match="has no checkpoint yet"):
        evaluate(run)


def test_ctrl_c_says_the_mean_so_far(debug_runs: DebugRuns, capsys: pytest.CaptureFixture[str]):
    calls = itertools.count(1)

    def make(*arguments: Any) -> Any:
        agent = make_agent(*arguments)
        policy = agent.policy

        def stopped_in_the_third_episode(*arguments: Any, **options: Any) -> Any:
            if next(calls) == 100:
                os.kill(os.getpid(), signal.SIGINT)
            return policy(*arguments, **options)

        agent.policy = stopped_in_the_third_episode  # type: ignore[method-assign]
        return agent

    assert main(["--run", str(debug_runs.path)], make) == 130
    assert re.fullmatch(
        r"stopped by SIGINT after 2 of 10 episodes: return [\d.]+ \+- [\d.]+ over 2 episodes .*\n",
        capsys.readouterr().out,
    )


def test_mistakes_get_one_line_before_anything_runs(debug_runs: DebugRuns, tmp_path: Path):
    run = str(debug_runs.path)
    (tmp_path / "folder").mkdir()
    for words, message in [
        ([], "--run is missing"),
        (["--run", run, "--episodes", "0"], "episodes"),
        (["--run", run, "--episodez", "3"], "did you mean 'episodes'"),
        (["--run", str(tmp_path)], "is not a run's directory"),
        (["--run", str(tmp_path / "nowhere")], "is not a run's directory"),
        (["--run", run, "--video", "out.webm"], "must end in .gif or .mp4"),
        (["--run", run, "--video", str(tmp_path / "no" / "out.gif")], "in a folder that exists"),
        (["--run", run, "--json", str(tmp_path / "folder")], "in a folder that exists"),
        (["--run", run, "--checkpoint", str(tmp_path)], "is no checkpoint"),
    ]:
        with pytest.raises(UserError) as error:
            main(words)
        assert message in str(error.value), words
    assert not contents(tmp_path)


class FromStates(NumpyAgent):
    def policy(self, timesteps: Any, state: Any, mode: str = "train") -> tuple[np.ndarray, Any]:
        assert "image" not in timesteps
        return super().policy(timesteps, state, mode)


def test_a_run_from_states_is_drawn_for_the_video_alone(tmp_path: Path):
    task = f"{ENVS}:Drawn"
    small = {"steps": 20, "train.prefill": 10, "train.batch_length": 4, "envs.image": False}
    config = load_config("debug", task=task, overrides={"logdir": str(tmp_path), **small})
    run = train(config, make_agent=FromStates).path
    plain = evaluate(run, episodes=2, make_agent=FromStates, task=task)
    drawn = evaluate(run, episodes=2, make_agent=FromStates, task=task, video_episodes=1)
    assert drawn.evaluation.returns == plain.evaluation.returns
    (episode,) = drawn.evaluation.shown
    assert episode["image"].shape == (6, 64, 64, 3) and np.all(episode["image"][5] == 5)
    text = (run / "config.yaml").read_text(encoding="utf-8")
    (run / "config.yaml").write_text(text.replace(":Drawn", ":Blind"), encoding="utf-8")
    with pytest.raises(UserError, match="its environment draws none"):
        evaluate(run, make_agent=FromStates, task=f"{ENVS}:Blind", video_episodes=1)


def test_a_run_of_ones_own_environment_whose_file_has_moved(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = run / "config.yaml"
    old = "task: dmc_cartpole_balance"
    assert old in config.read_text(encoding="utf-8")
    text = config.read_text(encoding="utf-8").replace(old, "task: own_env.py:make")
    config.write_text(text, encoding="utf-8")
    moved = tmp_path / "elsewhere" / "moved.py"
    moved.parent.mkdir()
    moved.write_text(
        "from dreamer.envs.make import make_env\n"
        "def make(): return make_env('dmc_cartpole_balance', time_limit=80, shadow_size=256)\n"
        "def short(): return make_env('dmc_walker_walk', time_limit=80, shadow_size=256)\n"
    )
    with pytest.raises(UserError, match="say so: --task own_env.py:make .or as it is named from"):
        evaluate(run)
    assert main(["--run", str(run), "--episodes", "1", "--task", f"{moved}:make"]) == 0
    captured = capsys.readouterr()
    assert f"note: the episodes are of {moved}:make; the run was trained on own_env" in captured.err
    assert f"{moved}:make after 400 steps" in captured.out
    with pytest.raises(UserError, match=r"does not fit this run's agent on .*moved.py:short"):
        evaluate(run, task=f"{moved}:short")


def test_networks_that_differ_from_the_checkpoints(run: Path):
    text = (run / "config.yaml").read_text(encoding="utf-8")
    text = text.replace("image: true", "image: false").replace("state: false", "state: true")
    (run / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="does not fit this run's agent"):
        main(["--run", str(run)])
