"""The averages that the papers state, recomputed from baselines/published/."""

import csv
from pathlib import Path

import pytest

PUBLISHED = Path(__file__).resolve().parent.parent / "baselines" / "published"
NEEDED = {"suite", "task", "method", "frames", "seeds", "source"}


def read(name: str) -> list[dict[str, str]]:
    with (PUBLISHED / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("method, frames, tasks, average", [
    *(("dreamer", 5_000_000, 20, 823.4), ("d4pg", 100_000_000, 18, 786.3)),
    *(("planet", 5_000_000, 20, 333.0), ("a3c", 100_000_000, 18, 243.7)),
])  # fmt: skip
def test_averages_of_the_papers_table(method, frames, tasks, average):
    rows = [row for row in read("dmc_scores.csv") if row["method"] == method]
    assert {int(row["frames"]) for row in rows} == {frames}
    assert len({row["task"] for row in rows}) == len(rows) == tasks
    mean = sum(float(row["score"]) for row in rows) / tasks
    assert round(mean, 1) == average


@pytest.mark.parametrize(
    "frames, average", [(500_000, 561), (1_000_000, 700), (2_000_000, 788), (4_900_000, 806)]
)
def test_averages_of_the_tf2_release(frames, average):
    rows = [row for row in read("dmc_curves.csv")
            if row["method"] == "dreamer_tf2_release" and int(row["frames"]) == frames]
    assert len(rows) == 20
    assert round(sum(float(row["mean"]) for row in rows) / 20) == average


def test_what_the_readme_says_of_coverage():
    rows = read("dmc_scores.csv")
    tasks = {method: {row["task"] for row in rows if row["method"] == method}
             for method in ("dreamer", "d4pg", "a3c", "tdmpc2", "slac")}
    assert tasks["dreamer"] - tasks["d4pg"] == {"quadruped_run", "quadruped_walk"}
    assert tasks["d4pg"] == tasks["a3c"]
    assert (len(tasks["tdmpc2"]), len(tasks["slac"])) == (12, 4)
    both = [float(row["score"]) for row in rows
            if row["method"] == "dreamer" and row["task"] in tasks["d4pg"]]
    assert round(sum(both) / 18, 1) == 813.8
    ends_early = {row["task"] for row in read("dmc_curves.csv")
                  if row["method"] == "dreamer_tf2_release" and row["seeds"] != "5"}
    assert len(ends_early) == 9


@pytest.mark.parametrize("path", sorted(PUBLISHED.glob("*.csv")), ids=lambda path: path.name)
def test_every_row_is_complete_and_single(path):
    rows = read(path.name)
    seen = set()
    for row in rows:
        assert row.keys() >= NEEDED and row["source"] and row["method"] == row["method"].lower()
        assert row["suite"] in ("dmc", "atari")
        key = tuple(row.get(name) for name in ("task", "method", "frames", "figure", "value"))
        assert key not in seen
        seen.add(key)
        value = float(row["score"] if "score" in row else row["mean"])
        assert row["suite"] == "atari" or 0 <= value <= 1000


def test_readings_off_figures_are_marked():
    rows = read("dmc_ablations.csv")
    assert len(rows) == 144
    assert {row["approximate"] for row in rows} == {"true"}
    assert {row["figure"] for row in rows} == {"fig4", "fig7", "fig8"}


def test_atari_has_what_normalisation_needs():
    rows = read("atari_scores.csv")
    by_method = {name: {row["task"] for row in rows if row["method"] == name}
                 for name in ("random", "human")}
    assert len(by_method["random"]) == 11 and by_method["random"] == by_method["human"]
