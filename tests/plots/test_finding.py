"""Which folders are runs, and their task, method and seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamer.errors import UserError
from plots.finding import RunFolder, find_runs


def make(root: Path, *places: str) -> None:
    for place in places:
        (root / place).mkdir(parents=True)
        (root / place / "metrics.jsonl").write_text('{"step": 1, "eval/return": 1}\n')


def found(root: Path, layout: str | None = None) -> set[tuple[str, str, str]]:
    runs = find_runs([root], layout)
    assert not runs.unknown and not runs.without_metrics
    return names(runs.runs)


def names(runs: list[RunFolder]) -> set[tuple[str, str, str]]:
    return {(run.task, run.method, run.seed) for run in runs}


@pytest.mark.parametrize(
    "place, expected",
    [
        ("dmc_walker_walk/dreamer_small/3", ("dmc_walker_walk", "dreamer_small", "3")),
        ("dreamer/dmc_walker_walk/3", ("dmc_walker_walk", "dreamer", "3")),
        ("logs/2020/walker_walk/dreamer/seed_3", ("dmc_walker_walk", "dreamer", "3")),
        ("dmc_walker_walk/3", ("dmc_walker_walk", "unnamed", "3")),
        ("dmc_ball_in_cup_catch/dreamer/00", ("dmc_cup_catch", "dreamer", "0")),
        ("atari_pong/dreamer_atari/1", ("atari_pong", "dreamer_atari", "1")),
        ("pong/rainbow/1", ("atari_pong", "rainbow", "1")),
        ("my_module_make/dreamer/2", ("my_module_make", "dreamer", "2")),
        ("dmc_walker_walk/dreamer/seed1/logs", ("dmc_walker_walk", "dreamer/logs", "1")),
    ],
)
def test_places(tmp_path, place, expected):
    make(tmp_path / "root", place)
    assert found(tmp_path / "root") == {expected}


@pytest.mark.parametrize("root", ["", "dmc_walker_walk", "dmc_walker_walk/dreamer/0"])
def test_any_level_may_be_the_root(tmp_path, root):
    make(tmp_path, "dmc_walker_walk/dreamer/0")
    assert found(tmp_path / root) == {("dmc_walker_walk", "dreamer", "0")}


def test_layout(tmp_path):
    make(tmp_path, "dmc_walker_walk-base-7", "dmc_hopper_hop-base-7")
    assert found(tmp_path, "{task}-{method}-{seed}") == {
        ("dmc_walker_walk", "base", "7"), ("dmc_hopper_hop", "base", "7")}
    with pytest.raises(UserError, match="must hold"):
        find_runs([tmp_path], "{task}/{method}")


def test_config_tells_where_the_path_does_not(tmp_path):
    make(tmp_path, "first", "second")
    (tmp_path / "first/config.yaml").write_text(
        "config:\n  task: dmc_walker_walk\n  seed: 4\n  method: ''\n")
    (tmp_path / "second/config.yaml").write_text("!!python/object:os.system {}\n")
    runs = find_runs([tmp_path])
    assert names(runs.runs) == {("dmc_walker_walk", "unnamed", "4")}
    assert runs.unknown == [tmp_path / "second"]


def test_sweeps_of_the_same_runs_are_told_apart(tmp_path):
    make(tmp_path, "a/dmc_walker_walk/dreamer/0", "b/dmc_walker_walk/dreamer/0")
    assert found(tmp_path) == {("dmc_walker_walk", "a/dreamer", "0"),
                               ("dmc_walker_walk", "b/dreamer", "0")}


def test_two_runs_of_one_name_are_refused(tmp_path):
    make(tmp_path, "dmc_walker_walk/dreamer/0", "dmc_walker_walk/dreamer/seed_0")
    with pytest.raises(UserError, match="Two runs are both dmc_walker_walk, dreamer, seed 0"):
        find_runs([tmp_path])


def test_a_folder_given_twice_counts_once(tmp_path):
    make(tmp_path, "dmc_walker_walk/dreamer/0")
    runs = find_runs([tmp_path, tmp_path / ".", tmp_path / "dmc_walker_walk"])
    assert len(runs.runs) == 1


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


def test_runs_without_metrics_are_named_like_the_others(tmp_path):
    make(tmp_path, "a/dmc_walker_walk/dreamer/0", "b/dmc_walker_walk/dreamer/0")
    lost = tmp_path / "b/dmc_walker_walk/dreamer/1"
    lost.mkdir()
    (lost / "attempts.jsonl").write_text("")
    assert names(find_runs([tmp_path]).without_metrics) == {("dmc_walker_walk", "b/dreamer", "1")}


def test_no_such_folder(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        find_runs([tmp_path / "none"])


def test_an_irregular_config_names_no_task(tmp_path, make_irregular):
    make(tmp_path / "runs", "first")
    make_irregular(tmp_path / "runs" / "first" / "config.yaml", "task: dmc_walker_walk\n")
    found = find_runs([tmp_path / "runs"])
    assert not found.runs and len(found.unknown) == 1
