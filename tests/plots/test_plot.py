"""The command line, from run directories to files."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dreamer.tasks import TASK_LISTS
from plots import report
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


def fails(arguments: list[str], capsys) -> str:
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in said[-1]
    return said[-1]


def test_everything_from_a_mixed_tree(runs, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["--indir", str(runs), "--outdir", str(out), "--resamples", "50"]) == 0
    written = capsys.readouterr()
    names = {path.name for path in out.iterdir()}
    stems = ("curves", "final_scores", "aggregates", "performance_profile", "improvement")
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("png", "pdf")} | {
        f"{stem}.{kind}" for stem in ("scores", "aggregates") for kind in ("csv", "md", "tex")
    } | {"curves.csv", "improvement.csv"}
    assert {Path(line).name for line in written.out.split()} == names
    assert "Skipped 1 damaged line(s)" in written.err
    assert (out / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (out / "curves.pdf").read_bytes()[:5] == b"%PDF-"
    with (out / "scores.csv").open() as file:
        rows = {(row["kind"], row["task"], row["method"]): row for row in csv.DictReader(file)}
    assert float(rows["run", "dmc_walker_walk", "dreamer"]["mean"]) == 201
    assert float(rows["run", "dmc_hopper_hop", "planner"]["mean"]) == 7
    assert float(rows["published", "dmc_walker_walk", "dreamer"]["mean"]) == 961.67


def test_one_task_beside_the_release(runs, tmp_path):
    out = tmp_path / "out"
    assert main(["--indir", str(runs), "--outdir", str(out), "--tasks", "dmc_walker_walk",
                 "--methods", "dreamer", "--published", "dreamer_tf2_release", "--figures",
                 "curves", "--formats", "png"]) == 0
    assert [path.name for path in out.iterdir()] == ["curves.png"]


def test_a_suite_shows_tasks_without_runs(runs, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["--indir", str(runs), "--outdir", str(out), "--suite", "dmc6", "--published",
                 "none", "--figures", "tables", "--resamples", "20"]) == 0
    assert "dreamer: no score on 5 of 6 tasks" in capsys.readouterr().err
    assert len((out / "scores.md").read_text().split("\n\n")[0].splitlines()) == 2 + 6 + 1


def test_what_is_missing_is_said_without_being_asked(tmp_path, write_run, capsys):
    for task in TASK_LISTS["dmc6"][:5]:
        write_run(f"runs/{task}/dreamer/0", {1000: 1.0, 2000: 2.0})
    for name, file in ((1, "attempts.jsonl"), (2, "config.yaml")):
        died = tmp_path / "runs" / TASK_LISTS["dmc6"][0] / "dreamer" / str(name)
        died.mkdir()
        (died / file).write_text("")
    write_run(f"runs/{TASK_LISTS['dmc6'][0]}/dreamer/3", {1000: 1.0}, key="train/return")
    out = tmp_path / "out"
    assert main(["--indir", str(tmp_path / "runs"), "--outdir", str(out), "--published", "none",
                 "--figures", "tables", "curves", "--formats", "svg", "--resamples", "20"]) == 0
    for said in (" ".join(capsys.readouterr().err.split()), (out / "scores.md").read_text()):
        assert "5 of dmc6's 6 tasks have results; missing: dmc_walker_walk." in said
        assert ("2 run(s) hold no metrics.jsonl (ended before it, or only begun): "
                "dmc_cartpole_swingup/dreamer/1, dmc_cartpole_swingup/dreamer/2.") in said
        assert "dmc_cartpole_swingup (1 of 4)" in said
        assert "1 run(s) have no value of eval/return" in said
    assert "dreamer: 1 of 4 seeds" in (out / "curves.svg").read_text()


def test_scores_at_frames_that_not_all_reached(runs, tmp_path, capsys):
    assert main(["--indir", str(runs), "--outdir", str(tmp_path / "out"), "--at", "1e6",
                 "--tasks", "dmc_walker_walk", "--formats", "png", "--resamples", "20"]) == 0
    assert "dreamer: no score on 1 of 1 tasks" in capsys.readouterr().err


def test_ablations_are_drawn_where_there_are_runs_of_them(tmp_path, write_run, capsys):
    for method in ("dreamer", "dreamer_small", "dreamer_no_value", "dreamer_contrastive",
                   "dreamer_stochastic_only", "dreamer_horizon=5", "dreamer_horizon=10"):
        write_run(f"runs/dmc_hopper_stand/{method}/0", {1000: 1.0, 2000: 2.0})
    out = tmp_path / "out"
    words = ["--outdir", str(out), "--figures", "ablation", "--formats", "svg"]
    assert main(["--indir", str(tmp_path / "runs"), *words]) == 0
    figures = {path.stem: path.read_text() for path in out.iterdir()}
    assert set(figures) == {"ablation_horizon", "ablation_fig7", "ablation_fig8",
                            "ablation_dynamics"}
    shown = {name: set(re.findall(r"<!-- (dreamer\S*) \(", text))
             for name, text in figures.items()}
    assert shown == {"ablation_horizon": {"dreamer"},
                     "ablation_fig7": {"dreamer", "dreamer_no_value"},
                     "ablation_fig8": {"dreamer", "dreamer_contrastive"},
                     "ablation_dynamics": {"dreamer", "dreamer_stochastic_only"}}
    assert "Reward only (figure)" in figures["ablation_fig8"]


def test_ablations_without_runs_of_them_are_drawn_when_asked_for(runs, tmp_path):
    out = tmp_path / "out"
    words = ["--outdir", str(out), "--figures", "ablation", "--formats", "svg"]
    assert main(["--indir", str(runs), *words]) == 0
    assert not list(out.iterdir())
    assert main(["--indir", str(runs), *words, "--ablation", "fig4", "fig7"]) == 0
    assert {path.name for path in out.iterdir()} == {"ablation_horizon.svg", "ablation_fig7.svg"}


def test_many_tasks_take_several_pages(tmp_path, write_run, monkeypatch):
    monkeypatch.setattr("plots.plot._TASKS_A_PAGE", 2)
    for i in range(3):
        write_run(f"runs/gym_Task{i}/mine/0", {1: 1.0, 2: 2.0})
    out = tmp_path / "out"
    assert main(["--indir", str(tmp_path / "runs"), "--outdir", str(out), "--formats", "svg",
                 "--figures", "curves"]) == 0
    assert {path.name for path in out.iterdir()} == {"curves_1.svg", "curves_2.svg"}
    assert "Task1" in (out / "curves_1.svg").read_text()
    assert "Task2" in (out / "curves_2.svg").read_text()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--methods", "draemer"], "Unknown method 'draemer'; did you mean 'dreamer'?"),
        (["--published", "d4gp"], "did you mean 'd4pg'?"),
        (["--suite", "dmc2"], "Unknown suite 'dmc2'; did you mean"),
        (["--tasks", "dmc_walker_wlak"], "did you mean 'dmc_walker_walk'?"),
        (["--tasks", "cmd_walker_walk"], "Unknown suite in the task name 'cmd_walker_walk'; did"),
        (["--tasks", "dmc_cheetah_run"], "No run of"),
        (["--metric", "eval/retrun"], "did you mean 'eval/return'?"),
        (["--bin", "1"], "too narrow"),
        (["--ablation", "fig5"], "Unknown ablation figure 'fig5'"),
        (["--normalize", "nothing"], "Unknown normalisation 'nothing'"),
        (["--layout", "{task}"], "must hold"),
        (["--published-dir", "/nowhere"], "No published figures in /nowhere"),
    ],
)
def test_wrong_inputs_get_one_message(runs, tmp_path, capsys, write_run, options, message):
    write_run("runs/dmc_walker_walk/long/0", dict.fromkeys(range(2100), 1.0))
    said = fails(["--indir", str(runs), "--outdir", str(tmp_path / "out"), "--formats", "png",
                  "--figures", "aggregates", *options], capsys)
    assert message in said


@pytest.mark.parametrize("name, message", [
    ("empty", "No metrics.jsonl below"), ("none", "is not a folder"),
    ("foreign", "names its task, method and seed")])
def test_empty_and_foreign_folders(tmp_path, capsys, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "metrics.jsonl").write_text("{}\n")
    out = ["--outdir", str(tmp_path / "out")]
    assert message in fails(["--indir", str(tmp_path / name), *out], capsys)


def test_an_outdir_that_is_a_file(runs, tmp_path, capsys):
    (tmp_path / "out").write_text("")
    said = fails(["--indir", str(runs), "--outdir", str(tmp_path / "out")], capsys)
    assert "Cannot make" in said


@pytest.mark.parametrize("program, options, out", [
    ("plot.py", ["--outdir", "out", "--formats", "png", "--figures", "curves"], "out/curves.png"),
    ("report.py", ["--out", "report.html"], "report.html")])
def test_as_a_script_without_tensorflow(tmp_path, write_run, program, options, out):
    """Runs from any folder and never imports TensorFlow."""
    write_run("runs/dmc_walker_walk/mine/0", {1: 1.0})
    (tmp_path / "tensorflow.py").write_text("raise RuntimeError('plots import TensorFlow')\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "plots" / program), "--indir", "runs", *options],
        cwd=tmp_path, capture_output=True, text=True,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)})
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert (tmp_path / out).is_file()


@pytest.mark.parametrize("program, wrong, message", [
    (main, ["--bin", "many"],
     "plot.py: error: argument --bin: 'many' is no number of frames, such as 1e6 (see --help)\n"),
    (report.main, ["--indir"],
     "report.py: error: argument --indir: expected at least one argument (see --help)\n")])
def test_a_usage_error_is_one_line_with_status_2(capsys, program, wrong, message):
    with pytest.raises(SystemExit) as stop:
        program(["--indir", "runs", *wrong])
    assert (stop.value.code, capsys.readouterr().err) == (2, message)
