"""Statistics against hand-computed cases and scipy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dreamer.errors import UserError
from plots.aggregates import aggregate, bounds_of, improvement, profile, summarise
from plots.published import Published
from plots.runs import Run
from plots.study import Study
from plots.tables import score_cells

PUBLISHED = Published()


def random_scores(tasks: int, runs: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(task, 1 + task, runs) for task in range(tasks)]


def test_hand_computed():
    scores = [np.array([0.0, 2.0]), np.array([4.0, 6.0]), np.array([10.0, 20.0])]
    found = aggregate(scores, resamples=50)
    assert found["mean"].value == pytest.approx((1 + 5 + 15) / 3)
    assert found["median"].value == 5
    # Six runs of weight 1/6: the middle half is [1.5, 4.5] of them, so the second and the fifth
    # run count half: (2/2 + 4 + 6 + 10/2) / 3.
    assert found["iqm"].value == pytest.approx((1 + 4 + 6 + 5) / 3)


@pytest.mark.parametrize("tasks, runs", [(4, 5), (20, 1), (3, 8)])
def test_interquartile_mean_is_scipys_trimmed_mean(tasks, runs):
    scores = random_scores(tasks, runs)
    found = aggregate(scores, resamples=10)
    assert found["iqm"].value == pytest.approx(stats.trim_mean(np.concatenate(scores), 0.25))
    assert found["mean"].value == pytest.approx(np.mean([task.mean() for task in scores]))
    assert found["median"].value == pytest.approx(np.median([task.mean() for task in scores]))


def test_tasks_with_more_runs_weigh_no_more():
    few = [np.array([0.0]), np.array([1.0])]
    many = [np.array([0.0]), np.array([1.0] * 50)]
    for name in ("mean", "median", "iqm"):
        assert aggregate(few)[name].value == pytest.approx(aggregate(many, 10)[name].value)


def test_interval_is_the_stratified_percentile_bootstrap():
    """Runs are drawn within each task; the task with one run never varies."""
    scores, rng = random_scores(2, 10, seed=1), np.random.default_rng(2)
    found = aggregate([*scores, np.array([5.0])], resamples=20_000)["mean"]
    means = [rng.choice(task, (20_000, 10)).mean(1) for task in scores]
    expected = np.percentile((means[0] + means[1] + 5) / 3, [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx(expected, abs=0.02)
    for value in aggregate([np.full(5, 1.0), np.full(5, 9.0)], resamples=100).values():
        assert value.low == pytest.approx(value.value) == pytest.approx(value.high)


def test_profile_hand_computed():
    scores = [np.array([0.0, 1.0]), np.array([0.5])]
    exact, low, high = profile(scores, np.array([-1.0, 0.0, 0.4, 0.5, 1.0]), resamples=50)
    # Weights 1/4, 1/4 and 1/2; strictly above.
    assert exact == pytest.approx([1, 0.75, 0.75, 0.25, 0])
    assert (low <= exact + 1e-12).all() and (exact <= high + 1e-12).all()


def test_improvement_is_mann_whitney():
    x, y = random_scores(3, 7, seed=1), random_scores(3, 5, seed=2)
    y[0][:2] = x[0][:2]  # ties
    expected = np.mean([stats.mannwhitneyu(a, b).statistic / (len(a) * len(b))
                        for a, b in zip(x, y, strict=True)])
    found = improvement(x, y, resamples=300)
    assert found.value == pytest.approx(expected)
    assert found.low <= found.value <= found.high
    back = improvement(y, x, resamples=300)
    assert back.value == pytest.approx(1 - found.value)


def test_one_run_a_task_has_no_interval():
    one, two = [np.array([1.0])], [np.array([2.0])]
    found = [improvement(one, two), *aggregate([*one, *two]).values()]
    assert np.isnan([(value.low, value.high) for value in found]).all()


def test_scales():
    tasks = ["dmc_walker_walk", "atari_pong", "gym_X"]
    bounds, words = bounds_of("auto", tasks, PUBLISHED)
    assert bounds["dmc_walker_walk"] == (0.0, 1000.0) and "gym_X" not in bounds
    low, high = bounds["atari_pong"]
    assert (low, high) == (PUBLISHED.point("atari_pong", "random").score,
                           PUBLISHED.point("atari_pong", "human").score)
    assert words == "return / 1000 and human-normalised score"
    assert bounds_of("none", tasks, PUBLISHED)[0]["gym_X"] == (0.0, 1.0)
    one = bounds_of("d4pg", tasks, PUBLISHED)[0]
    assert one == {"dmc_walker_walk": (0.0, PUBLISHED.point("dmc_walker_walk", "d4pg").score)}


def test_returns_of_unknown_scales_are_not_averaged():
    names = ["own.py_push", "own.py_pull"]
    runs = [Run(name, "mine", "0", Path("nowhere"), np.array([100]), np.array([y]))
            for name, y in zip(names, (3525.0, 54.0), strict=True)]
    made = Study(runs, names, ["mine"], PUBLISHED, None, metric="eval/return", width=100)
    summary = summarise(made)
    assert not summary.own and "unknown scales cannot be averaged" in summary.notes[-1]
    assert summarise(made, "none").own[0].aggregates["mean"].value == 3579 / 2
    cells = [row[0] for row in score_cells(made)]
    assert cells == ["Task", "own.py:push", "own.py:pull"]
    assert summarise(made._with(tasks=names[:1])).own[0].aggregates["mean"].value == 3525


@pytest.mark.parametrize("name, message", [
    ("d4gp", "did you mean 'd4pg'"),
    ("simple", "None of the tasks .* Choose another --normalize, such as none")])
def test_unusable_scales(name, message):
    with pytest.raises(UserError, match=message):
        bounds_of(name, ["dmc_walker_walk"], PUBLISHED)
