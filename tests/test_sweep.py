"""A sweep as a user starts it, on a real Ray."""

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
from ray_helpers import LOOPBACK, SMALL, descendants, listening
from whole_runs import finish, metrics_of, python, start, wait_until

from dreamer.config.config import load_config
from dreamer.errors import UserError
from dreamer.sweep import Speed, main
from dreamer.sweeps.trial import read_attempts

TASKS = ("dmc_cartpole_balance", "dmc_reacher_easy")
run_sweep = partial(python, "-m", "dreamer.sweep")
RUNS = [Path(task, "dreamer_debug", "0") for task in TASKS]


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets an import of Ray fail."""
    monkeypatch.setitem(sys.modules, "ray", None)


@pytest.mark.slow
def test_two_tasks_one_killed_and_a_third_refused(tmp_path: Path):
    """Trials finish, a killed one is started again, a mistake is not; nothing is run twice."""
    pytest.importorskip("ray")
    words = ("--tasks", *TASKS, "dmc_no_task", "--logdir", tmp_path, *SMALL)
    process = start("dreamer.sweep", *words)
    killed, whole = (tmp_path / run for run in RUNS)
    wait_until(lambda: bool(read_attempts(killed)), process)
    addresses = listening([process.pid, *descendants(process.pid)])
    assert addresses and addresses <= LOOPBACK
    os.kill(read_attempts(killed)[0]["pid"], signal.SIGKILL)
    status, output, errors = finish(process)
    assert status == 1, output + errors
    assert "Traceback" not in output + errors
    lines = output.splitlines()
    assert "3 trials, 0 of them already finished" in lines
    assert f"{RUNS[0]}: finished after 2 attempts" in lines
    assert f"{RUNS[1]}: finished" in lines
    (failed,) = [line for line in lines if line.startswith("failed: ")]
    assert "dmc_no_task/dreamer_debug/0 after 1 attempt(s): exit status 2" in failed
    assert "unknown task 'dmc_no_task'" in failed
    assert str(tmp_path / "dmc_no_task" / "dreamer_debug" / "0" / "output.log") in output
    ends = {path: [a["status"] for a in read_attempts(path) if a["event"] == "end"]
            for path in (killed, whole)}  # fmt: skip
    assert ends == {killed: [-signal.SIGKILL, 0], whole: [0]}
    for path in (killed, whole):
        assert [line["step"] for line in metrics_of(path)] == [160, 240, 320, 400]

    again = run_sweep("--tasks", *TASKS, "--logdir", tmp_path, *SMALL)
    assert (again.returncode, again.stdout) == (0, "2 trials, 2 of them already finished\n")
    dry = run_sweep("--tasks", *TASKS, "--logdir", tmp_path, *SMALL, "--steps", "500", "--dry-run")
    assert f"{RUNS[0]}: resumes from 400" in dry.stdout
    other = run_sweep("--tasks", *TASKS, "--logdir", tmp_path, *SMALL, "--loss.kl_scale", "2")
    assert other.returncode == 2 and "loss.kl_scale is 1.0, now 2.0" in other.stderr


def test_a_dry_run_starts_nothing(tmp_path: Path, no_ray: None, capsys):
    words = ("--suite", "dmc20", "--seeds", "5", "--logdir", tmp_path / "runs", "--dry-run",
             "--speed", tmp_path / "none.json")  # fmt: skip
    assert main([str(word) for word in words]) == 0
    output = capsys.readouterr().out
    assert "100 trials, 0 of them finished" in output
    assert "dmc_walker_walk/dreamer/4: new" in output
    assert "machine hours: not known, the speed was not measured here" in output
    assert not (tmp_path / "runs").exists()


FIGURES = {
    "task": "dmc_walker_walk",
    "update": {"float32": {"seconds": 0.5}, "bfloat16": {"seconds": 0.25}},
    "env": {"collect_steps_per_second": 100.0},
    "config": {"train.batch_size": 50, "optimizer.model_lr": 6e-4, "seed": 3},
}


def write_figures(folder: Path, figures: object) -> Path:
    (folder / "speed.json").write_text(json.dumps(figures))
    return folder / "speed.json"


def test_hours_are_updates_and_frames_one_after_the_other(tmp_path: Path):
    speed = Speed(write_figures(tmp_path, FIGURES))
    config = load_config(overrides={"steps": 105_000})
    updates = 100 + 100_000 * 100 // 1000
    assert speed.hours(config) == pytest.approx((updates * 0.25 + 1050) / 3600)
    exact = config.replace({"precision": "float32"})
    assert speed.hours(exact) == pytest.approx((updates * 0.5 + 1050) / 3600)
    assert speed.hours(exact, 55_000) == pytest.approx((5000 * 0.5 + 500) / 3600)
    assert speed.hours(exact, 105_000) == 0
    other = load_config(overrides={"train.batch_size": 10, "optimizer.model_lr": 1.0, "seed": 1})
    assert speed.differs(other) == ["train.batch_size"]


@pytest.mark.parametrize(
    "figures",
    [{}, [], {"update": {}, "env": {"collect_steps_per_second": 1}}, "x", {"update": {"a": 3}},
     {"update": {"a": {"seconds": 0}}, "env": {"collect_steps_per_second": 1}}],
)  # fmt: skip
def test_files_without_the_figures(tmp_path: Path, figures: object):
    with pytest.raises(UserError, match="make it with: python -m dreamer.benchmark"):
        Speed(write_figures(tmp_path, figures))
    with pytest.raises(UserError, match=r"cannot read .*make it with"):
        Speed(tmp_path / "none.json")


def test_a_dry_run_knows_the_hours_of_dreamer_alone(tmp_path: Path, no_ray: None, capsys):
    figures = {"update": {"float32": {"seconds": 1}}, "env": {"collect_steps_per_second": 100}}
    words = ["--tasks", *TASKS, "--logdir", str(tmp_path / "runs"), "--dry-run", "--speed",
             str(write_figures(tmp_path, figures)), "--agent", "d4pg"]  # fmt: skip
    assert main(words) == 0
    output = capsys.readouterr().out
    assert "dmc_reacher_easy/d4pg/0: new" in output
    assert output.splitlines()[-1] == (
        "machine hours: not known for d4pg, because the estimate is for Dreamer alone"
    )
    assert main(words[:-2]) == 0
    assert "machine hours: about 305.3, one trial at a time" in capsys.readouterr().out


@pytest.mark.parametrize("words", ["", "--dry-run"])
@pytest.mark.parametrize("place", ["file", "file/below", "runs"])
def test_a_place_that_is_no_folder_is_refused_before_ray(
    words: str, place: str, tmp_path: Path, no_ray: None, capsys
):
    (tmp_path / "file").write_text("")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / TASKS[0]).write_text("")  # where a trial's folder is to be
    with pytest.raises(UserError, match="^cannot make .* is no folder; choose a --logdir"):
        main(["--tasks", *TASKS, "--logdir", str(tmp_path / place), *words.split()])
    assert not capsys.readouterr().out


@pytest.mark.parametrize(("words", "message"), [
    ("--suite dmc6 --gpus -2", "--gpus must be"),
    ("--suite dmc6 --train.devices 2 --gpus 1", "--gpus gives each trial 1; give --gpus 2"),
    ("--suite dmc6 --sweeds 2", "did you mean 'seeds'?"),
])  # fmt: skip
def test_usage_errors(words: str, message: str, tmp_path: Path, no_ray: None):
    with pytest.raises(UserError) as caught:
        main([*words.split(), "--logdir", str(tmp_path)])
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("address", "message"), [
    ("nowhere", "no Ray cluster answers at nowhere: "),
    ("127.0.0.1:9", "no Ray cluster answers at 127.0.0.1:9"),
])  # fmt: skip
def test_an_address_without_a_cluster(tmp_path: Path, address: str, message: str):
    pytest.importorskip("ray")
    done = run_sweep("--suite", "dmc6", "--address", address, "--logdir", tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {message}") and not list(tmp_path.iterdir())


def test_ray_is_missing(tmp_path: Path):
    # Found first, and fails as an import does where there is no such package.
    absent = "raise ModuleNotFoundError(\"No module named 'ray'\", name='ray')"
    (tmp_path / "ray.py").write_text(absent, encoding="utf-8")
    done = run_sweep("--suite", "dmc6", "--logdir", tmp_path / "runs", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "pip install 'ray>=2.9'" in done.stderr and "Traceback" not in done.stderr
