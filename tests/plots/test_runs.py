"""Which folders are runs, their task, method and seed, and their metrics in bins."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from dreamer.errors import UserError
from plots.runs import RunFolder, auto_bin, find_runs, load_runs


def make(root: Path, *places: str) -> None:
    for place in places:
        (root / place).mkdir(parents=True)
        (root / place / "metrics.jsonl").write_text('{"step": 1, "eval/return": 1}\n')


def found(root: Path) -> set[tuple[str, str, str]]:
    runs, unknown, without_metrics = find_runs([root])
    assert not unknown and not without_metrics
    return names(runs)


def names(runs: list[RunFolder]) -> set[tuple[str, str, str]]:
    return {(run.task, run.method, run.seed) for run in runs}


@pytest.mark.parametrize("place, expected", [
    ("dmc_walker_walk/dreamer_small/3", ("dmc_walker_walk", "dreamer_small", "3")),
    ("dreamer/dmc_walker_walk/3", ("dmc_walker_walk", "dreamer", "3")),
    ("logs/2020/walker_walk/dreamer/seed_3", ("dmc_walker_walk", "dreamer", "3")),
    ("dmc_walker_walk/3", ("dmc_walker_walk", "unnamed", "3")),
    ("dmc_ball_in_cup_catch/dreamer/00", ("dmc_cup_catch", "dreamer", "0")),
    ("atari_pong/dreamer_atari/1", ("atari_pong", "dreamer_atari", "1")),
    ("pong/rainbow/1", ("atari_pong", "rainbow", "1")),
    ("my_module_make/dreamer/2", ("my_module_make", "dreamer", "2")),
    ("dmc_walker_walk/dreamer/seed1/logs", ("dmc_walker_walk", "dreamer/logs", "1"))])
def test_places(tmp_path, place, expected):
    make(tmp_path / "root", place)
    assert found(tmp_path / "root") == {expected}


@pytest.mark.parametrize("root", ["", "dmc_walker_walk", "dmc_walker_walk/dreamer/0"])
def test_any_level_may_be_the_root(tmp_path, root):
    make(tmp_path, "dmc_walker_walk/dreamer/0")
    assert found(tmp_path / root) == {("dmc_walker_walk", "dreamer", "0")}
    assert len(find_runs([tmp_path, tmp_path / root, tmp_path / "."]).runs) == 1


def test_config_tells_where_the_path_does_not(tmp_path):
    make(tmp_path, "first", "second")
    (tmp_path / "first/config.yaml").write_text(
        "config: {task: dmc_walker_walk, seed: 4, method: ''}\n")
    (tmp_path / "second/config.yaml").write_text("!!python/object:os.system {}\n")
    runs = find_runs([tmp_path])
    assert names(runs.runs) == {("dmc_walker_walk", "unnamed", "4")}
    assert runs.unknown == [tmp_path / "second"]


def test_a_moved_run_has_the_method_of_its_config(tmp_path):
    make(tmp_path, "0", "dmc_walker_walk/1")
    for seed, place in enumerate(("0", "dmc_walker_walk/1")):
        (tmp_path / place / "config.yaml").write_text(
            f"config: {{task: dmc_walker_walk, seed: {seed}, method: ''}}\n"
            "agent: dreamer\npresets: [small, contrastive]\n")
    assert found(tmp_path) == {
        ("dmc_walker_walk", "dreamer_contrastive_small", "0"),
        ("dmc_walker_walk", "dreamer_contrastive_small", "1")}


def test_two_runs_of_one_name_are_refused(tmp_path):
    make(tmp_path, "dmc_walker_walk/dreamer/0", "dmc_walker_walk/dreamer/seed_0")
    with pytest.raises(UserError, match="Two runs are both dmc_walker_walk, dreamer, seed 0"):
        find_runs([tmp_path])


def test_runs_that_hold_no_metrics_are_found_too(tmp_path):
    make(tmp_path, "dmc_walker_walk/dreamer/0", "dmc_walker_walk/old/seed3/logs")
    for place in ("dmc_walker_walk/dreamer/1/attempts.jsonl", "notes/config.yaml",
                  "dmc_hopper_hop/dreamer/0/config.yaml",
                  "dmc_hopper_hop/dreamer/0/inner/config.yaml",
                  "dmc_walker_walk/dreamer/0/checkpoints/config.yaml",
                  "dmc_walker_walk/old/seed3/config.yaml"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("")
    runs = find_runs([tmp_path])
    assert len(runs.runs) == 2 and not runs.unknown
    assert names(runs.without_metrics) == {("dmc_walker_walk", "dreamer", "1"),
                                ("dmc_hopper_hop", "dreamer", "0")}


def test_sweeps_of_the_same_runs_are_told_apart(tmp_path):
    make(tmp_path, "a/dmc_walker_walk/dreamer/0", "b/dmc_walker_walk/dreamer/0")
    assert found(tmp_path) == {("dmc_walker_walk", "a/dreamer", "0"),
                               ("dmc_walker_walk", "b/dreamer", "0")}
    lost = tmp_path / "b/dmc_walker_walk/dreamer/1"
    lost.mkdir()
    (lost / "attempts.jsonl").write_text("")
    assert names(find_runs([tmp_path]).without_metrics) == {("dmc_walker_walk", "b/dreamer", "1")}


def test_an_irregular_config_names_no_task(tmp_path, make_irregular):
    make(tmp_path / "runs", "first")
    make_irregular(tmp_path / "runs" / "first" / "config.yaml", "task: dmc_walker_walk\n")
    found = find_runs([tmp_path / "runs"])
    assert not found.runs and len(found.unknown) == 1


def load(folder, metric="eval/return", width=None):
    runs = find_runs([folder]).runs
    return load_runs(runs, metric, width or auto_bin(runs))


def test_bins_hold_what_lies_around_them(tmp_path, write_run):
    write_run("dmc_walker_walk/dreamer/0", {4: 1.0, 5: 2.0, 14: 4.0, 15: 8.0, 40: 16.0})
    (run,), counts = load(tmp_path, width=10)
    assert run.x.tolist() == [0, 10, 20, 40]
    assert run.y.tolist() == [1.0, 3.0, 8.0, 16.0]
    assert counts.damaged_lines == 0


@pytest.mark.parametrize("key, metric", [
    ("eval_return", "eval/return"), ("test/return", "eval/return"),
    ("train_return", "train/return"), ("episode/score", "train/return"), ("loss/kl", "loss/kl")])
def test_older_names(tmp_path, write_run, key, metric):
    write_run("dmc_walker_walk/dreamer/0", {1000: 5.0}, key=key)
    (run,), _ = load(tmp_path, metric)
    assert run.y.tolist() == [5.0]


def test_what_cannot_be_read_is_skipped_and_counted(tmp_path, write_run):
    tail = ('{"step": 300, "eval/ret\n\x00\x00\n[1, 2]\n{"eval/return": 1}\n'
            '{"step": -5, "eval/return": 1}\n{"step": "7", "eval/return": 1}\n'
            '{"step": 400, "eval/return": 9.0}\n{"step": 500, "eval/return": 3')
    write_run("dmc_walker_walk/dreamer/0", {100: 1.0, 200: 2.0}, tail=tail)
    write_run("dmc_walker_walk/dreamer/1", {1: 1.0}, tail="".join(
        f'{{"step": 200, "eval/return": {v}}}\n'
        for v in ("NaN", "Infinity", '"7"', "null", "true", "1" + "0" * 400)))
    write_run("dmc_walker_walk/dreamer/2", {100: 1.0, 200: 2.0},  # resumed
              tail='{"step": 100, "eval/return": 3.0}\n')
    (damaged, no_numbers, resumed), counts = load(tmp_path, width=100)
    assert damaged.x.tolist() == [100, 200, 400]
    assert no_numbers.x.tolist() == [0]
    assert resumed.y.tolist() == [2.0, 2.0]
    assert counts.damaged_lines == 7
    assert counts.non_finite == 5  # null is no value
    assert [text.split(";")[0] for text in counts.messages("eval/return")] == [
        "Skipped 7 damaged line(s)", "Skipped 5 value(s) of eval/return that were not finite."]


def test_files_without_a_line(tmp_path, write_run):
    write_run("dmc_walker_walk/dreamer/0", {})
    with pytest.raises(UserError, match="None of the 1 metrics"):
        load(tmp_path)


@pytest.mark.parametrize("last, width", [
    (5_000_000, 100_000), (250_000, 5_000), (4_990_000, 100_000), (30, 1), (0, 1)])
def test_auto_bin(tmp_path, write_run, last, width):
    write_run("dmc_walker_walk/dreamer/0", {0: 1.0, last: 1.0}, tail='{"step": 9e9')
    assert auto_bin(find_runs([tmp_path]).runs) == width


def test_memory_does_not_grow_with_the_files(tmp_path, write_run):
    """Twenty times the lines, the same peak but for noise: nothing but bins is kept."""
    peaks = []
    for name, lines in (("small", 1_000), ("large", 20_000)):
        line = '{{"step": {}, "eval/return": 1.0, "pad": "' + "x" * 200 + '"}}\n'
        write_run(f"{name}/dmc_walker_walk/dreamer/0", {},
                  tail="".join(map(line.format, range(0, 1_000_000, 1_000_000 // lines))))
        tracemalloc.start()
        load(tmp_path / name, width=20_000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 300_000


@pytest.mark.parametrize("width", [None, 100])
def test_irregular_metrics_are_refused(tmp_path, write_run, make_irregular, width):
    path = write_run("runs/dmc_walker_walk/dreamer/0", {100: 1.0}) / "metrics.jsonl"
    text = path.read_text()
    path.unlink()
    make_irregular(path, text)
    with pytest.raises(UserError, match=f"Cannot read {path}: it is (a link|not a regular file)"):
        load(tmp_path / "runs", width=width)


def test_the_folder_of_runs_may_be_a_link(tmp_path, write_run):
    write_run("runs/dmc_walker_walk/dreamer/0", {100: 1.0})
    (tmp_path / "results").symlink_to(tmp_path / "runs")
    (run,), _ = load(tmp_path / "results")
    assert run.y.tolist() == [1.0]
