"""Other places for metrics: what they are handed, and that a run does not depend on them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from whole_runs import ROOT

from dreamer.errors import UserError
from dreamer.logs.logger import Logger
from dreamer.logs.sinks import EventFile, recall, remember, sink_names
from dreamer.logs.video import encode_gif


class Kept:
    """A sink that keeps what it is handed, and fails from a certain call on."""

    def __init__(self, calls: int = 1000):
        self.left = calls
        self.got: list[tuple] = []

    def __getattr__(self, name: str):
        def take(*what: object) -> None:
            self.left -= 1
            if self.left < 0:
                raise ConnectionError("the service is gone")
            self.got.append((name, *what))

        return take


def report(folder: Path, *sinks: Kept) -> list[dict]:
    """A logger's life: resumed, two lines, a video, closed. Returns the lines of metrics."""
    with Logger(folder, tensorboard=True, terminal="plain", total_steps=10, sinks=sinks) as logger:
        logger.resume(0, 0.0)
        logger.scalars({"eval/return": 3.0, "model/kl": float("nan")})
        logger.write(2, updates=1)
        logger.video("eval/policy", np.zeros((2, 8, 8, 3), np.uint8), 2, 10)
        logger.write(4, updates=2)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_sink_gets_what_metrics_get(tmp_path: Path):
    sink = Kept()
    lines = report(tmp_path, sink)
    kinds = [what[0] for what in sink.got]
    assert kinds == ["resume", "scalars", "video", "scalars", "close"]
    for line, (_, values, step) in zip(lines, [g for g in sink.got if g[0] == "scalars"],
                                       strict=True):  # fmt: skip
        assert {**values, "step": step, "wall_time": line["wall_time"]} == line
    assert sink.got[1][1]["nonfinite/model/kl"] == 1
    (name, gif, step) = sink.got[2][1:]
    assert (name, gif[:6], step) == ("eval/policy", b"GIF89a", 2)


@pytest.mark.parametrize("calls", range(5))
def test_a_failing_sink_is_given_up_and_said(tmp_path: Path, capsys, calls: int):
    failing, sound = Kept(calls), Kept()
    lines = report(tmp_path, failing, sound)
    assert [line["step"] for line in lines] == [2, 4]
    assert len(failing.got) == calls and len(sound.got) == 5
    said = [line for line in capsys.readouterr().out.splitlines() if "given up" in line]
    assert said == ["warning: Kept is given up: the service is gone"]


def test_names(monkeypatch: pytest.MonkeyPatch):
    assert sink_names("") == [] and sink_names(" , ") == []
    with pytest.raises(UserError, match="did you mean 'wandb'"):
        sink_names("wandbb")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install wandb"):
        sink_names("wandb")
    with pytest.raises(UserError, match="pip install mlflow"):
        sink_names("mlflow")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert sink_names("mlflow, wandb,mlflow") == ["mlflow", "wandb"]


def test_ids_are_kept_for_a_resumed_run(tmp_path: Path):
    assert recall(tmp_path, "wandb") == ""
    remember(tmp_path, "wandb", "abc")
    remember(tmp_path, "mlflow", "def")
    assert (recall(tmp_path, "wandb"), recall(tmp_path, "mlflow")) == ("abc", "def")
    (tmp_path / "sinks.json").write_text('{"wandb": 3')
    assert recall(tmp_path, "wandb") == ""


def test_a_missing_package_is_said_before_anything_is_made(tmp_path: Path):
    words = ["--log.sinks", "wandbb", "--configs", "debug", "--logdir", str(tmp_path / "runs")]
    done = subprocess.run([sys.executable, "-m", "dreamer.run", *words], cwd=ROOT, text=True,
                          capture_output=True, timeout=300)  # fmt: skip
    assert done.returncode == 2 and "log.sinks has 'wandbb'" in done.stderr
    assert not (tmp_path / "runs").exists()


READ_MLFLOW = """
from mlflow import MlflowClient
client = MlflowClient()
place = client.get_experiment_by_name("mine").experiment_id
(run,) = client.search_runs([place])
print(run.info.run_name, run.info.status, run.data.params["train.batch_size"],
      [point.step for point in client.get_metric_history(run.info.run_id, "train/return")],
      len(client.list_artifacts(run.info.run_id, "videos")) > 0)
"""


@pytest.fixture(scope="module")
def with_sinks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has wandb and mlflow beside all that we have."""
    folder = tmp_path_factory.mktemp("venv")
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=600)
    command = [python, "-m", "pip", "install", "--quiet", "wandb", "mlflow"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    if done.returncode:
        pytest.skip(f"cannot install wandb and mlflow here: {done.stderr.strip()[-300:]}")
    # After its own packages, ours: so it has TensorFlow and the rest without installing them.
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "ours.pth").write_text("\n".join([*ours, str(ROOT)]) + "\n")
    return python


@pytest.mark.slow
def test_a_run_in_weights_and_biases_and_mlflow(with_sinks: Path, tmp_path: Path):
    """Offline, as a user runs it: stopped at 240 steps, resumed to 400 in the same places."""
    environ = {**os.environ, "WANDB_MODE": "offline", "MLFLOW_EXPERIMENT_NAME": "mine",
               "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}  # fmt: skip
    words = ["-m", "dreamer.run", "--configs", "debug", "--logdir", "runs", "--log.sinks",
             "wandb,mlflow", "--task", "dmc_cartpole_balance"]  # fmt: skip
    for steps in ("240", "400"):
        done = subprocess.run([with_sinks, *words, "--steps", steps], cwd=tmp_path, env=environ,
                              capture_output=True, text=True, timeout=3600)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "given up" not in done.stdout
    found = subprocess.run([with_sinks, "-c", READ_MLFLOW], cwd=tmp_path, env=environ,
                           capture_output=True, text=True, timeout=600)  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == (
        "dmc_cartpole_balance/dreamer_debug/0 FINISHED 4 [160, 240, 320, 400] True"
    )
    run = tmp_path / "runs" / "dmc_cartpole_balance" / "dreamer_debug" / "0"
    identity = recall(run, "wandb")
    files = list((run / "wandb").glob(f"offline-run-*-{identity}/run-{identity}.wandb"))
    assert len(files) == 2
    assert all(b"train/return" in path.read_bytes() for path in files)
    assert list((run / "wandb").glob("*/files/media/videos/eval/policy_*.gif"))


def read_events(folder):
    """Reads a folder as TensorBoard does."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    return accumulator.Reload()


def test_scalars_and_videos_come_back(tmp_path):
    gif = encode_gif(np.zeros((3, 8, 12, 3), np.uint8), fps=10)
    events = EventFile(tmp_path)
    events.scalars({"train/loss": 0.5, "eval/return": 10}, 1000)
    events.scalars({"train/loss": 0.25}, 2000)
    events.video("eval/policy", gif, 2000)
    found = read_events(tmp_path)
    assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [(1000, 0.5), (2000, 0.25)]
    assert [(e.step, e.value) for e in found.Scalars("0_returns/eval")] == [(1000, 10.0)]
    (image,) = found.Images("eval/policy")
    assert (image.step, image.width, image.height) == (2000, 48, 32)
    assert image.encoded_image_string == gif
    events.close()


def test_a_resumed_run_supersedes_later_points(tmp_path):
    first = EventFile(tmp_path)
    for step in (1000, 2000, 3000):
        first.scalars({"loss": float(step)}, step)
    first.close()
    second = EventFile(tmp_path)
    second.resume(2000)
    second.scalars({"loss": 7.0}, 3000)
    second.close()
    found = [(event.step, event.value) for event in read_events(tmp_path).Scalars("run/loss")]
    assert found == [(1000, 1000.0), (2000, 2000.0), (3000, 7.0)]


def test_writing_imports_no_tensorflow(tmp_path):
    script = (
        "import sys; from dreamer.logs.logger import Logger\n"
        "with Logger(sys.argv[1], tensorboard=True, terminal='plain', total_steps=10) as logger:\n"
        "    logger.scalars({'loss': 1.0}); logger.write(5)\n"
        "assert not any(name.partition('.')[0] == 'tensorflow' for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1


@pytest.mark.slow
def test_tensorboards_server_shows_every_run_of_a_tree(tmp_path: Path):
    runs = ("dmc_walker_walk/dreamer/0", "dmc_walker_walk/dreamer_horizon=5/0")
    for run in runs:
        (tmp_path / run).mkdir(parents=True)
        with Logger(tmp_path / run, tensorboard=True, terminal="plain", total_steps=9) as logger:
            logger.scalars({"eval/return": 5.0})
            logger.write(3)
    log = tmp_path / "server.log"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path), "--port", "0"]
    with log.open("w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 600
        while not (found := re.search(r"at (http://(\S+?):\d+)/", log.read_text())):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        assert found[2] in ("localhost", "127.0.0.1")
        tags: dict = {}
        while set(tags) != set(runs):
            assert time.monotonic() < deadline, tags
            with urllib.request.urlopen(f"{found[1]}/data/plugin/scalars/tags", timeout=60) as got:
                tags = json.load(got)
            time.sleep(0.2)
        assert all("0_returns/eval" in tags[run] for run in runs)
    finally:
        server.terminate()
        server.wait(60)
