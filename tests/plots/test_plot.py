"""The command line, from run directories to files."""

from __future__ import annotations

import csv
import re
import signal
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

from dreamer.errors import UserError
from dreamer.tasks import TASK_LISTS
from plots.plot import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def runs(tmp_path, write_run) -> Path:
    """Three seeds of our layout on one task, one run of an older layout on another."""
    for seed in range(3):
        write_run(f"runs/dmc_walker_walk/dreamer/{seed}",
                  {step: step / 1000 + seed for step in range(10_000, 210_000, 10_000)})
    write_run("runs/planner/dmc_hopper_hop/0", {100_000: 5.0, 200_000: 7.0}, key="eval_return",
              tail='{"step": 300000, "eval_ret')
    return tmp_path / "runs"


def refusal(*arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        main(list(map(str, arguments)))
    return str(caught.value)


def draw(folder: Path, words: str) -> dict[str, Path]:
    """Draws the runs in <folder>/runs; returns the files by name."""
    out = folder / "out"
    assert main(["--indir", str(folder / "runs"), "--outdir", str(out), *words.split()]) == 0
    return {path.name: path for path in out.iterdir()}


def test_everything_from_a_mixed_tree(runs, tmp_path, capsys):
    files = draw(tmp_path, "--resamples 50")
    written = capsys.readouterr()
    stems = ("curves", "final_scores", "aggregates", "performance_profile", "improvement")
    assert set(files) == {f"{stem}.{kind}" for stem in stems for kind in ("png", "pdf")} | {
        f"{stem}.{kind}" for stem in ("scores", "aggregates") for kind in ("csv", "md", "tex")
    } | {"curves.csv", "improvement.csv"}
    assert {Path(line).name for line in written.out.split()} == set(files)
    assert "Skipped 1 damaged line(s)" in written.err
    assert files["curves.png"].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert files["curves.pdf"].read_bytes()[:5] == b"%PDF-"
    with files["scores.csv"].open() as file:
        rows = {(row["kind"], row["task"], row["method"]): row for row in csv.DictReader(file)}
    assert float(rows["run", "dmc_walker_walk", "dreamer"]["mean"]) == 201
    assert float(rows["run", "dmc_hopper_hop", "planner"]["mean"]) == 7
    assert float(rows["published", "dmc_walker_walk", "dreamer"]["mean"]) == 961.67


def test_a_suite_shows_tasks_without_runs(runs, tmp_path, capsys):
    files = draw(tmp_path, "--suite dmc6 --published none --figures tables --resamples 20")
    said = capsys.readouterr().err
    assert "1 of 1 method(s) lack a score on some of the 6 tasks: dreamer." in said
    assert len(files["scores.md"].read_text().split("\n\n")[0].splitlines()) == 2 + 6 + 1


def test_what_is_missing_is_said_without_being_asked(tmp_path, write_run, capsys):
    for task in TASK_LISTS["dmc6"][:5]:
        write_run(f"runs/{task}/dreamer/0", {1000: 1.0, 2000: 2.0})
    for name, file in ((1, "attempts.jsonl"), (2, "config.yaml")):
        died = tmp_path / "runs" / TASK_LISTS["dmc6"][0] / "dreamer" / str(name)
        died.mkdir()
        (died / file).write_text("")
    write_run(f"runs/{TASK_LISTS['dmc6'][0]}/dreamer/3", {1000: 1.0}, key="train/return")
    files = draw(tmp_path, "--published none --figures tables curves --formats svg --resamples 20")
    for said in (" ".join(capsys.readouterr().err.split()), files["scores.md"].read_text()):
        assert "5 of dmc6's 6 tasks have results; missing: dmc_walker_walk." in said
        assert ("2 run(s) hold no metrics.jsonl (they ended before it or have just begun): "
                "dmc_cartpole_swingup/dreamer/1, dmc_cartpole_swingup/dreamer/2.") in said
        assert "Fewer seeds: dreamer on dmc_cartpole_swingup (1 of 4)" in said
        assert "1 run(s) have no value of eval/return" in said
    assert "dreamer: 1 of 4 seeds" in files["curves.svg"].read_text()


def test_shorter_episodes_than_published_are_said(tmp_path, write_run, capsys):
    for method, limit in (("dreamer_debug", 80), ("dreamer", 0)):
        run = write_run(f"runs/dmc_walker_walk/{method}/0", {1000: 1.0})
        (run / "config.yaml").write_text(f"config: {{envs: {{time_limit: {limit}}}}}\n")
    draw(tmp_path, "--figures curves --formats svg --resamples 20")
    said = " ".join(capsys.readouterr().err.split())
    assert ("Episodes are shorter than the published ones, so returns are smaller and cannot be "
            "compared with them: dreamer_debug on dmc_walker_walk (80 frames).") in said


def test_ablations_are_drawn_where_there_are_runs_of_them(tmp_path, write_run, capsys):
    for method in ("dreamer", "dreamer_small", "dreamer_no_value", "dreamer_contrastive",
                   "dreamer_stochastic_only", "dreamer_horizon=5", "dreamer_horizon=10"):
        write_run(f"runs/dmc_hopper_stand/{method}/0", {1000: 1.0, 2000: 2.0})
    files = draw(tmp_path, "--figures ablation --formats svg")
    shown = {name: set(re.findall(r"<!-- (dreamer\S*) \(", path.read_text()))
             for name, path in files.items()}
    assert shown == {"ablation_horizon.svg": {"dreamer"},
                     "ablation_fig7.svg": {"dreamer", "dreamer_no_value"},
                     "ablation_fig8.svg": {"dreamer", "dreamer_contrastive"},
                     "ablation_dynamics.svg": {"dreamer", "dreamer_stochastic_only"}}
    assert "Reward only (figure)" in files["ablation_fig8.svg"].read_text()


def test_ablations_without_runs_of_them_are_drawn_when_asked_for(runs, tmp_path):
    assert not draw(tmp_path, "--figures ablation --formats svg")
    asked = draw(tmp_path, "--figures ablation --formats svg --ablation fig4 fig7")
    assert set(asked) == {"ablation_horizon.svg", "ablation_fig7.svg"}


def test_many_tasks_take_several_pages(tmp_path, write_run, monkeypatch):
    monkeypatch.setattr("plots.study.MOST_TASKS", 2)
    for i in range(3):
        write_run(f"runs/gym_Task{i}/mine/0", {1: 1.0, 2: 2.0})
    files = draw(tmp_path, "--formats svg --figures curves")
    assert {name: "Task2" in path.read_text() for name, path in files.items()} == {
        "curves_1.svg": False, "curves_2.svg": True}


@pytest.mark.parametrize("words, message", [
    ("--methods draemer", "Unknown method 'draemer'; did you mean 'dreamer'?"),
    ("--published d4gp", "did you mean 'd4pg'?"),
    ("--suite dmc2", "Unknown suite 'dmc2'; did you mean"),
    ("--tasks dmc_walker_wlak", "did you mean 'dmc_walker_walk'?"),
    ("--tasks cmd_walker_walk", "Unknown task 'cmd_walker_walk'; did you mean"),
    ("--tasks dmc_cheetah_run", "No run of"),
    ("--metric eval/retrun", "did you mean 'eval/return'?"),
    ("--bin 1", "too narrow"),
    ("--suite dmc6 --tasks dmc_walker_walk", "not both"),
    ("--ablation fig5", "Unknown ablation figure 'fig5'"),
    ("--normalize nothing", "Unknown normalisation 'nothing'"),
    ("--published-dir /nowhere", "No published figures in /nowhere")])
def test_wrong_inputs_get_one_message(runs, tmp_path, write_run, words, message):
    write_run("runs/dmc_walker_walk/long/0", dict.fromkeys(range(2100), 1.0))
    assert message in refusal("--indir", runs, "--outdir", tmp_path / "out", "--formats", "png",
                              "--figures", "aggregates", *words.split())


@pytest.mark.parametrize("name, message", [
    ("empty", "No metrics.jsonl of a known run below"), ("none", "is not a folder"),
    ("foreign", "1 run(s) left out, because no folder names its task, method and seed")])
def test_empty_and_foreign_folders(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "metrics.jsonl").write_text("{}\n")
    assert message in refusal("--indir", tmp_path / name, "--outdir", tmp_path / "out")


def test_an_outdir_that_is_a_file(runs):
    assert "cannot make the folder" in refusal("--indir", runs, "--outdir", __file__)


def script(folder: Path, program: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Runs a program in a folder whose modules Python finds first."""
    # The child shares our list of fonts: Matplotlib prints a line if a new list takes 5 seconds.
    fonts = matplotlib.get_cachedir()
    return subprocess.run(
        [sys.executable, str(ROOT / "plots" / program), *map(str, words)], cwd=folder,
        capture_output=True, text=True,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "HOME": str(folder),
             "MPLCONFIGDIR": fonts})


@pytest.mark.parametrize("program, options, out", [
    ("plot.py", "--outdir out --formats png --figures curves --tasks dmc_walker_walk "
     "--methods mine --published dreamer_tf2_release", "out/curves.png"),
    ("report.py", "--out report.html", "report.html")])
def test_as_a_script_without_tensorflow(tmp_path, write_run, program, options, out):
    """Runs from any folder and never imports TensorFlow."""
    write_run("runs/dmc_walker_walk/mine/0", {1: 1.0})
    (tmp_path / "tensorflow.py").write_text("raise RuntimeError('plots import TensorFlow')\n")
    done = script(tmp_path, program, "--indir", "runs", *options.split())
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert (tmp_path / out).is_file()


@pytest.mark.parametrize("program, out", [
    ("plot.py", "--outdir"), pytest.param("report.py", "--out", marks=pytest.mark.slow)])
def test_a_usage_error_and_ctrl_c_exit_with_their_statuses(tmp_path, write_run, program, out):
    """The signal comes when the program opens the first metrics file."""
    done = script(tmp_path, program, "--bin", "many")
    assert (done.returncode, done.stderr) == (
        2, "error: --bin must be a whole number, not 'many'\n")
    write_run("runs/dmc_walker_walk/mine/0", {1: 1.0})
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "sys.addaudithook(lambda event, args: event == 'open' and 'metrics.jsonl' in str(args[0])"
        " and os.kill(os.getpid(), signal.SIGINT))\n")
    done = script(tmp_path, program, "--indir", "runs", out, "out")
    assert done.returncode == 128 + signal.SIGINT and "Traceback" not in done.stderr, done.stderr
