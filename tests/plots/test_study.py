"""What a study says is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from plots.curves import group
from plots.loading import Run
from plots.published import Published
from plots.study import build


def run(x: list[int], seed: str = "0", task: str = "a", method: str = "m") -> Run:
    return Run(task, method, seed, Path("nowhere"), np.array(x), np.ones(len(x)))


def notes(runs: list[Run], tasks: list[str], width: int = 10, **options) -> list[str]:
    methods = sorted({run.method for run in runs})
    return build(group(runs), tasks, methods, Published([]), [], metric="eval/return",
                 width=width, **options).notes


def test_missing_tasks_and_seeds():
    runs = [run([10], str(i)) for i in range(3)] + [run([90], task="b")]
    missing = ["m: no score on 1 of 3 tasks (c).", "m: fewer seeds on b (1 of 3)."]
    assert notes(runs, ["a", "b", "c"]) == [*missing, "m: runs end between 10 and 90 frames."]
    assert notes(runs, ["a", "b", "c"], width=100) == missing
    assert notes(runs, ["a"], seeds=5) == ["m: fewer seeds on a (3 of 5)."]
    assert notes(runs, ["b"]) == []


def test_methods_that_end_apart_on_a_task():
    runs = [run([10]), run([10, 40], method="n"), run([20], method="o")]
    assert notes(runs, ["a"]) == [
        "Methods end at different frames on a (m 10, n 40): their scores there are not of the "
        "same frames (--at compares at the same)."]
    assert notes([runs[0], runs[2]], ["a"]) == []
