"""Published figures as the plots look them up, and scales made of them."""

from __future__ import annotations

import numpy as np
import pytest

from dreamer.errors import UserError
from plots.names import SUITES, in_order, published_label, suite_gaps, task_name, task_title
from plots.normalise import normalise, scale
from plots.published import Published

HEAD = "suite,task,method,frames,mean,std,seeds,source\n"


@pytest.fixture(scope="module")
def published() -> Published:
    return Published.load()


def test_scores_and_curves(published):
    task = "dmc_walker_walk"
    assert published.point(task, "dreamer").score == pytest.approx(961.67, abs=10)
    assert published.point(task, "dreamer").frames == 5_000_000
    curve = published.curve(task, "dreamer_tf2_release")
    assert len(curve.frames) == 50 and curve.frames[-1] == 4_900_000
    assert published.curve(task, "a3c") is None
    assert published.point("dmc_quadruped_run", "d4pg") is None
    assert published.point(task, "nobody") is None


def test_curves_are_read_at_any_frames(published):
    task, method = "dmc_cartpole_balance", "dreamer_tf2_release"
    at = {frames: published.point(task, method, frames) for frames in (2e5, 2.5e5, 3e5, 4.95e6)}
    middle = (at[2e5].score + at[3e5].score) / 2
    assert at[2.5e5].score == pytest.approx(middle) and at[2.5e5].frames == 250_000
    assert at[4.95e6].frames == 4_900_000 and at[4.95e6].seeds == 4
    assert published.point(task, method, 6e6) is None
    assert published.point(task, "dreamer", 1e6) is None
    assert published.point(task, "dreamer", 5e6).seeds == 5


def test_figure_readings_are_kept_apart(published):
    assert "no_value" not in published.methods and "reconstruction" not in published.methods
    assert published.figures == ["fig4", "fig7", "fig8"]
    rows = published.ablation("fig4")
    assert len(rows) == 96 and all(row.approximate and row.frames is None for row in rows)


@pytest.mark.parametrize(
    "text, message",
    [("a,b\n1,2\n", "needs the columns"),
     (HEAD + "dmc,x,m,0,oops,1,5,here\n", "line 2: could not convert"),
     (HEAD + "dmc,x,m,0,1,1,5,here\ndmc,x,m,1,nan,1,5,here\n", "line 3: score is nan"),
     (HEAD + "dmc,x\n", "line 2")],
)
def test_foreign_files_are_refused(tmp_path, text, message):
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        Published.load(tmp_path)


def test_no_files(tmp_path):
    with pytest.raises(UserError, match="No published figures"):
        Published.load(tmp_path)


def test_names():
    assert len(SUITES["dmc20"]) == 20
    assert in_order(["gym_X", "atari_pong", "dmc_walker_walk", "dmc_acrobot_swingup"]) == [
        "dmc_acrobot_swingup", "dmc_walker_walk", "atari_pong", "gym_X"]
    assert task_title("dmc_cup_catch") == "Cup Catch"
    assert task_name("walker_walk") == "dmc_walker_walk" and task_name("dreamer") is None
    assert published_label("dreamer_tf2_release") == "Dreamer, TF2 release"


def test_what_most_of_a_suite_lacks_is_said():
    tasks = set(SUITES["dmc20"]) - {"dmc_cup_catch", "dmc_hopper_hop"}
    assert suite_gaps(tasks) == ["18 of dmc20's 20 tasks have results; missing: dmc_cup_catch, "
                                 "dmc_hopper_hop."]
    assert suite_gaps(set(SUITES["dmc6"]) - {"dmc_cup_catch"}) == [
        "5 of dmc6's 6 tasks have results; missing: dmc_cup_catch."]
    assert suite_gaps(SUITES["dmc20"]) == suite_gaps(SUITES["dmc6"]) == suite_gaps(["gym_X"]) == []


def test_scales(published, tmp_path):
    tasks = ["dmc_walker_walk", "atari_pong", "gym_X"]
    bounds, words = scale("auto", tasks, published)
    assert bounds["dmc_walker_walk"] == (0.0, 1000.0) and "gym_X" not in bounds
    low, high = bounds["atari_pong"]
    assert (low, high) == (published.point("atari_pong", "random").score,
                           published.point("atari_pong", "human").score)
    assert normalise(np.array([low, high]), (low, high)).tolist() == [0, 1]
    assert words == "return / 1000 and human-normalised score"
    assert scale("none", tasks, published)[0]["gym_X"] == (0.0, 1.0)
    one = scale("d4pg", tasks, published)[0]
    assert one == {"dmc_walker_walk": (0.0, published.point("dmc_walker_walk", "d4pg").score)}
    (tmp_path / "mine.csv").write_text("task,low,high\nwalker_walk,10,20\n")
    assert scale(str(tmp_path / "mine.csv"), tasks, published)[0] == {
        "dmc_walker_walk": (10.0, 20.0)}


@pytest.mark.parametrize(
    "name, message",
    [("d4gp", "did you mean 'd4pg'"), ("missing.csv", "Cannot normalise by"),
     ("simple", "None of the tasks .* Choose another --normalize, such as none")],
)
def test_scales_that_do_not_exist(published, name, message):
    with pytest.raises(UserError, match=message):
        scale(name, ["dmc_walker_walk"], published)


def test_a_scale_without_extent(published, tmp_path):
    (tmp_path / "flat.csv").write_text("task,low,high\nwalker_walk,10,10\n")
    with pytest.raises(UserError, match="Cannot normalise dmc_walker_walk"):
        scale(str(tmp_path / "flat.csv"), ["dmc_walker_walk"], published)
