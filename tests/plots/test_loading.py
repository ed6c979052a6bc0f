"""Streaming metrics files into bins."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from dreamer.errors import UserError
from plots.finding import find_runs
from plots.loading import auto_bin, load_runs


def load(folder, **options):
    places = find_runs([folder]).runs
    return load_runs(places, **options)


def test_bins_hold_what_lies_around_them(tmp_path, write_run):
    write_run("dmc_walker_walk/dreamer/0", {4: 1.0, 5: 2.0, 14: 4.0, 15: 8.0, 40: 16.0})
    (run,), counts, width = load(tmp_path, bin_width=10)
    assert width == 10
    assert run.x.tolist() == [0, 10, 20, 40]
    assert run.y.tolist() == [1.0, 3.0, 8.0, 16.0]
    assert counts.damaged_lines == 0


@pytest.mark.parametrize(
    "key, metric",
    [("eval_return", "eval/return"), ("test/return", "eval/return"),
     ("train_return", "train/return"), ("episode/score", "train/return"), ("loss/kl", "loss/kl")],
)
def test_older_names(tmp_path, write_run, key, metric):
    write_run("dmc_walker_walk/dreamer/0", {1000: 5.0}, key=key)
    (run,), _, _ = load(tmp_path, metric=metric)
    assert run.y.tolist() == [5.0]


def test_damaged_lines_are_skipped_and_counted(tmp_path, write_run):
    tail = ('{"step": 300, "eval/ret\n\x00\x00\n[1, 2]\n{"eval/return": 1}\n'
            '{"step": -5, "eval/return": 1}\n{"step": "7", "eval/return": 1}\n'
            '{"step": 400, "eval/return": 9.0}\n{"step": 500, "eval/return": 3')
    write_run("dmc_walker_walk/dreamer/0", {100: 1.0, 200: 2.0}, tail=tail)
    write_run("dmc_walker_walk/dreamer/1", {100: 1.0})
    runs, counts, _ = load(tmp_path, bin_width=100)
    assert runs[0].x.tolist() == [100, 200, 400]
    assert (counts.damaged_lines, counts.damaged_files) == (7, 1)
    assert "Skipped 7 damaged line(s) in 1 metrics file(s)" in counts.messages("eval/return")[0]


def test_values_that_are_no_numbers_are_counted(tmp_path, write_run):
    tail = "".join(f'{{"step": 2, "eval/return": {v}}}\n'
                   for v in ("NaN", "Infinity", '"7"', "null", "true", "1" + "0" * 400))
    write_run("dmc_walker_walk/dreamer/0", {1: 1.0}, tail=tail)
    (run,), counts, _ = load(tmp_path, bin_width=1)
    assert run.x.tolist() == [1]
    assert counts.non_finite == 5  # null is no value


def test_a_resumed_run_is_said(tmp_path, write_run):
    write_run("dmc_walker_walk/dreamer/0", {100: 1.0, 200: 2.0},
              tail='{"step": 100, "eval/return": 3.0}\n')
    (run,), counts, _ = load(tmp_path, bin_width=100)
    assert run.y.tolist() == [2.0, 2.0]
    assert counts.rewound == 1 and "went back" in counts.messages("eval/return")[0]


def test_runs_without_the_metric_are_named(tmp_path, write_run):
    write_run("dmc_walker_walk/dreamer/0", {100: 1.0})
    other = write_run("dmc_walker_walk/dreamer/1", {100: 1.0}, key="train/return")
    runs, counts, _ = load(tmp_path)
    assert len(runs) == 1
    assert str(other) in counts.messages("eval/return")[0]


def test_a_metric_nowhere_suggests_the_nearest(tmp_path, write_run):
    write_run("dmc_walker_walk/dreamer/0", {100: 1.0}, key="train/return")
    with pytest.raises(UserError, match="did you mean 'train/return'"):
        load(tmp_path, metric="train/retrun")


def test_files_without_a_line(tmp_path, write_run):
    folder = write_run("dmc_walker_walk/dreamer/0", {})
    (folder / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="None of the 1 metrics"):
        load(tmp_path)


@pytest.mark.parametrize(
    "last, width", [(5_000_000, 100_000), (250_000, 5_000), (4_990_000, 100_000), (30, 1), (0, 1)]
)
def test_auto_bin(tmp_path, write_run, last, width):
    write_run("dmc_walker_walk/dreamer/0", {0: 1.0, last: 1.0}, tail='{"step": 9e9')
    assert auto_bin(find_runs([tmp_path]).runs) == width


def test_too_narrow_bins(tmp_path, write_run):
    write_run("dmc_walker_walk/dreamer/0", dict.fromkeys(range(3000), 1.0))
    with pytest.raises(UserError, match="too narrow"):
        load(tmp_path, bin_width=1)


def test_memory_does_not_grow_with_the_files(tmp_path, write_run):
    """Twenty times the lines, the same peak but for noise: nothing but bins is kept."""
    peaks = []
    for name, lines in (("small", 1_000), ("large", 20_000)):
        folder = tmp_path / name / "dmc_walker_walk/dreamer/0"
        folder.mkdir(parents=True)
        with (folder / "metrics.jsonl").open("w") as file:
            for i in range(lines):
                step = i * (1_000_000 // lines)
                file.write(json.dumps({"step": step, "eval/return": 1.0, "pad": "x" * 200}) + "\n")
        tracemalloc.start()
        load(tmp_path / name, bin_width=20_000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 300_000


@pytest.mark.parametrize("bin_width", [None, 100])
def test_irregular_metrics_are_refused(tmp_path, write_run, make_irregular, bin_width):
    path = write_run("runs/dmc_walker_walk/dreamer/0", {100: 1.0}) / "metrics.jsonl"
    text = path.read_text()
    path.unlink()
    make_irregular(path, text)
    with pytest.raises(UserError, match=f"Cannot read {path}: it is (a link|not a regular file)"):
        load(tmp_path / "runs", bin_width=bin_width)


def test_the_folder_of_runs_may_be_a_link(tmp_path, write_run):
    write_run("runs/dmc_walker_walk/dreamer/0", {100: 1.0})
    (tmp_path / "results").symlink_to(tmp_path / "runs")
    (run,), _, _ = load(tmp_path / "results")
    assert run.y.tolist() == [1.0]
