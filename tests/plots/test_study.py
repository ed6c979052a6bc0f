"""Curves over seeds, final scores, and names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dreamer.tasks import TASK_LISTS
from plots.labels import in_order, published_label, suite_gaps, task_name, task_title
from plots.runs import Run
from plots.study import curve, final, most_methods, whiskers


def run(x: list[int], y: list[float]) -> Run:
    return Run("t", "m", "0", Path("nowhere"), np.array(x), np.array(y, float))


def test_mean_and_std_hand_computed():
    found = curve([run([10, 20], [1, 5]), run([10, 20], [3, 9])])
    assert found.x.tolist() == [10, 20] and found.mean.tolist() == [2, 7]
    assert found.low.tolist() == [1, 5] and found.high.tolist() == [3, 9]
    assert found.present.tolist() == [2, 2] and found.seeds == 2


def test_seeds_at_other_steps_are_interpolated_within_their_range_alone():
    found = curve([run([0, 20, 40], [0, 20, 40]), run([10, 30], [100, 100])])
    assert found.x.tolist() == [0, 10, 20, 30, 40]
    assert found.mean.tolist() == [0, 55, 60, 65, 40]
    assert found.present.tolist() == [1, 2, 2, 2, 1]


def test_no_seed_between_two_runs_leaves_no_point():
    found = curve([run([0, 10], [1, 1]), run([40, 50], [2, 2])])
    assert found.x.tolist() == [0, 10, 40, 50]


def test_where_nothing_was_evaluated_there_is_no_point():
    found = curve([run([200, 400], [40, 53])])
    assert found.x.tolist() == [200, 400] and found.mean.tolist() == [40, 53]


def test_range_and_whiskers():
    found = curve([run([0], [1]), run([0], [2]), run([0], [6])], spread="range")
    assert (found.low[0], found.mean[0], found.high[0]) == (1, 3, 6)
    scores = np.array([1.0, 2.0, 6.0])
    assert whiskers(scores, "std").ravel() == pytest.approx([scores.std()] * 2)
    assert whiskers(scores, "range").ravel().tolist() == [2, 3]
    assert (whiskers(scores, "ci") >= 0).all()


def test_bootstrap_band_is_scipys():
    values = np.random.default_rng(0).normal(size=12)
    found = curve([run([0], [v]) for v in values], spread="ci")
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile",
                             rng=np.random.default_rng(1)).confidence_interval
    assert (found.low[0], found.high[0]) == pytest.approx((theirs.low, theirs.high), abs=0.06)


def test_final_scores():
    runs = [run([10, 20], [1, 5]), run([10, 20, 30], [3, 9, 12])]
    at_end = final(runs, 10)
    assert at_end.scores.tolist() == [5, 12] and at_end.frames.tolist() == [20, 30]
    assert final(runs, 10, at=15).scores.tolist() == [3, 6]
    assert final(runs, 5, at=30).scores.tolist() == [12]


def test_every_task_has_a_method_in_figures_of_too_many():
    tasks = {f"m{number:02}": ["walk"] for number in range(13)} | {"z0": ["pong"], "z1": ["pong"]}
    assert most_methods(tasks) == [*list(tasks)[:11], "z0"]
    assert most_methods(dict.fromkeys(tasks, ["walk"])) == list(tasks)[:12]


def test_names():
    assert len(TASK_LISTS["dmc20"]) == 20
    assert in_order(["gym_X", "atari_pong", "dmc_walker_walk", "dmc_acrobot_swingup"]) == [
        "dmc_acrobot_swingup", "dmc_walker_walk", "atari_pong", "gym_X"]
    titles = {
        "dmc_cup_catch": "Cup Catch", "dmlab_keys": "Keys", "gym_CartPole-v1": "CartPole-v1",
        "myenvs.py_Push": "myenvs.py:Push", "dmc_walker_run+dmc_walker_walk":
        "Walker Run + Walker Walk",
    }  # fmt: skip
    assert {name: task_title(name) for name in titles} == titles
    assert task_name("walker_walk") == "dmc_walker_walk" and task_name("dreamer") is None
    assert published_label("dreamer_tf2_release") == "Dreamer, TF2 release"


def test_what_most_of_a_suite_lacks_is_said():
    tasks = set(TASK_LISTS["dmc20"]) - {"dmc_cup_catch", "dmc_hopper_hop"}
    assert suite_gaps(tasks) == ["18 of dmc20's 20 tasks have results; missing: dmc_cup_catch, "
                                 "dmc_hopper_hop."]
    assert suite_gaps(set(TASK_LISTS["dmc6"]) - {"dmc_cup_catch"}) == [
        "5 of dmc6's 6 tasks have results; missing: dmc_cup_catch."]
    for complete in (TASK_LISTS["dmc20"], TASK_LISTS["dmc6"], ["gym_X"]):
        assert suite_gaps(complete) == []
