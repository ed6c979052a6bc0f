"""Long predictions of real debug runs, from the command line and from Python."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from whole_runs import DEBUG, LAB_RUN, STANDIN, TASK, DebugRuns, contents, finish, start

from dreamer.agent.agent import Agent
from dreamer.errors import UserError
from dreamer.evaluate import evaluate
from dreamer.predict import main, predict

FIGURES = ("foresight", "calibration", "open-loop-image")


def check_report(
    folder: Path, step: int, keys: list[str], episodes: int, horizon: int, figures: bool = False
) -> dict:  # fmt: skip
    """The folder holds what --help says, and the errors are sane."""
    names = {f"{key}-{step}.{kind}" for key in keys for kind in ("gif", "png")}
    drawn = {f"{name}-{step}.{kind}" for name in FIGURES for kind in ("png", "svg") if figures}
    drawn |= {f"calibration-{step}.json"} if figures else set()
    assert {path.name for path in folder.iterdir()} == {f"errors-{step}.json", *names, *drawn}
    report = json.loads((folder / f"errors-{step}.json").read_text(encoding="utf-8"))
    assert (report["step"], report["episodes"], report["horizon"]) == (step, episodes, horizon)
    assert list(report["errors"]) == keys
    for errors in report["errors"].values():
        for name in ("mean", "std", "still"):
            assert len(errors[name]) == horizon and min(errors[name]) >= 0
        assert max(errors["mean"]) > 0
    for key in keys:
        with (
            Image.open(folder / f"{key}-{step}.gif") as clip,
            Image.open(folder / f"{key}-{step}.png") as still,
        ):
            assert clip.n_frames == report["context"] + horizon
            frame = np.asarray(clip.convert("RGB"))
            assert frame.std() > 10 and np.asarray(still).std() > 10
    return report


def test_images_from_the_command_line(run: Path):
    before = {path: contents(path) for path in (run, run / "checkpoints", run / "episodes")}
    words = ("--run", run, "--context", "5", "--horizon", "30", "--episodes", "3")
    status, output, errors = finish(start("dreamer.predict", *words))
    assert status == 0, errors
    report = check_report(run / "predictions", 400, ["image", "reward"], 3, 30)
    assert (report["source"], report["seed"], report["task"]) == ("fresh", 0, TASK)
    lines = output.splitlines()
    assert "3 held-out episodes, run now with the actor's mode, seed 0" in output
    heads = next(line for line in lines if line.lstrip().startswith("steps ahead"))
    assert heads.split() == ["steps", "ahead", "image", "still", "reward", "still"]
    last = next(line for line in lines if line.split()[:1] == ["30"]).split()
    image = report["errors"]["image"]
    assert float(last[1]) == pytest.approx(image["mean"][-1], rel=1e-3)
    assert float(last[2]) == pytest.approx(image["still"][-1], rel=1e-3)
    assert image["unit"] == "levels of 255" and image["mean"][-1] > 1
    with Image.open(run / "predictions" / "image-400.gif") as clip:
        assert clip.size == (3 * 68 * 3, 3 * 68 * 3)  # three sequences, three rows, enlarged
    assert {path: contents(path) for path in before} == before  # nothing else is written


def test_what_is_predicted_is_held_out_and_seen_first(
    debug_runs: DebugRuns, monkeypatch: pytest.MonkeyPatch
):
    path = str(debug_runs.path)
    asked = []

    def noted(agent: Agent, batch: dict, *context: int) -> dict:
        asked.append((agent, batch))
        return original(agent, batch, *context)

    original = Agent.predict
    monkeypatch.setattr(Agent, "predict", noted)
    older = f"{path}/checkpoints/000000000240"
    prediction = predict(path, context=4, horizon=6, episodes=2, seed=1, checkpoint=older)
    assert (prediction.about["step"], prediction.about["seed"]) == (240, 1)
    ((agent, batch),) = asked
    for context in (4, 5):  # the model saw as many timesteps as were asked for
        again = original(agent, batch, context)["model/image"]
        assert np.array_equal(again, prediction.result["model/image"]) == (context == 4)
    evaluated = evaluate(path, episodes=2, video_episodes=2, seed=1).evaluation.shown
    for b, episode in enumerate(evaluated):  # the same starts as an evaluation's, not training's
        np.testing.assert_array_equal(prediction.result["truth/image"][b, 0], episode["image"][0])
    assert list(prediction.errors) == ["image", "reward"]
    assert prediction.result["model/image"].shape == (2, 10, 64, 64, 3)


@pytest.mark.slow
def test_images_and_vectors_of_deepmind_lab(
    lab_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    monkeypatch.syspath_prepend(STANDIN)  # workers find modules as this process does
    run = tmp_path / LAB_RUN
    shutil.copytree(lab_run, run)
    out = tmp_path / "out" / "here"
    words = ("--run", run, "--context", "3", "--horizon", "12", "--output", out)
    assert main([str(word) for word in words]) == 0
    keys = ["VEL.ROT", "VEL.TRANS", "image", "reward"]
    folder = json.loads((out / "errors-400.json").read_text(encoding="utf-8"))["errors"]
    assert sorted(folder) == keys
    report = check_report(out, 400, list(folder), 5, 12)
    assert report["errors"]["reward"]["unit"] == "tanh of the reward"
    captured = capsys.readouterr()
    assert "VEL.TRANS in own units" in captured.out
    said = r"loading .*\nrunning \d+ episode\(s\)\npredicting \d+ timesteps\n"
    assert re.search(said, captured.err)
    assert not (run / "predictions").exists()


def test_saved_episodes(run: Path, capsys: pytest.CaptureFixture[str]):
    shutil.copytree(run / "episodes", run / "eval_episodes")
    words = ["--run", str(run), "--source", "saved", "--horizon", "7", "--episodes", "2"]
    assert main([*words, "--figures", "svg"]) == 0
    for name in FIGURES:
        with Image.open(run / "predictions" / f"{name}-400.png") as drawn:
            assert np.asarray(drawn.convert("L")).std() > 10
        assert b"<svg" in (run / "predictions" / f"{name}-400.svg").read_bytes()
    text = (run / "predictions" / "calibration-400.json").read_text(encoding="utf-8")
    assert json.loads(text)["reward of the next 7 steps"]["count"] > 2
    report = check_report(run / "predictions", 400, ["image", "reward"], 2, 7, figures=True)
    assert report["source"] == "saved"
    assert "2 held-out episodes, saved by the run's evaluations" in capsys.readouterr().out


def test_mistakes_get_one_line(run: Path, tmp_path: Path):
    path = str(run)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for words, message in [
        ([], "--run is missing"),
        (["--run", path, "--context", "0"], "at least 1"),
        (["--run", path, "--horizon", "0"], "at least 1"),
        (["--run", path, "--horizon", "37"], "need episodes of 42 timesteps"),
        (["--run", path, "--context", "40"], "at most 41"),
        (["--run", path, "--figures", "jpg"], "must be one of none, pdf, svg"),
        (["--run", path, "--source", "training"], "must be one of fresh, saved"),
        (["--run", path, "--source", "saved", "--horizon", "9"], "eval_episodes holds no episodes"),
        (["--run", path, "--output", str(tmp_path / "file" / "below")], "cannot make"),
        (["--run", path, "--output", str(tmp_path / "link")], "is a link"),
    ]:
        with pytest.raises(UserError) as error:
            main(words)
        assert message in str(error.value), words
    assert not (run / "predictions").exists()


@pytest.mark.slow
@pytest.mark.parametrize("words, keys", [
    (("--task", "atari_pong"), ["image", "reward"]),
    (
        ("--task", "dmc_cartpole_balance", "--envs.image", "false", "--envs.state", "true",
         "--eval.videos", "0", "--log.video_every", "0", "--eval.save_episodes", "true"),
        ["position", "velocity", "reward"],
    ),
])  # fmt: skip
def test_atari_and_vectors_alone(words: tuple[str, ...], keys: list[str], tmp_path: Path):
    command = (*words, *DEBUG[2:], "--logdir", tmp_path)
    status, _, errors = finish(start("dreamer.run", *command))
    assert status == 0, errors
    (run,) = tmp_path.glob("*/*/0")
    assert main(["--run", str(run), "--horizon", "10"]) == 0
    check_report(run / "predictions", 400, keys, 5, 10)
    if "position" in keys:
        assert main(["--run", str(run), "--horizon", "10", "--source", "saved"]) == 0
