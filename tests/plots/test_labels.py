"""Names of tasks and methods."""

from __future__ import annotations

from dreamer.tasks import TASK_LISTS
from plots.labels import in_order, published_label, suite_gaps, task_name, task_title


def test_names():
    assert len(TASK_LISTS["dmc20"]) == 20
    assert in_order(["gym_X", "atari_pong", "dmc_walker_walk", "dmc_acrobot_swingup"]) == [
        "dmc_acrobot_swingup", "dmc_walker_walk", "atari_pong", "gym_X"]
    assert task_title("dmc_cup_catch") == "Cup Catch"
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
