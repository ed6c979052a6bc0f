"""Puts the scores of different tasks on one scale."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dreamer.errors import UserError, suggest
from plots.names import suite_of, task_name
from plots.published import Published

Scale = dict[str, tuple[float, float]]
"""Per task the scores that become 0 and 1. A task that is not in it cannot be normalised."""

_DMC_BEST = 1000.0  # a reward of at most 1 on each of an episode's 1000 frames


def scale(name: str, tasks: Sequence[str], published: Published) -> tuple[Scale, str]:
    """Returns the scale called `name`, and its words for an axis.

    ``auto``: control tasks by their best possible return of 1000, Atari games from random play to
    a human gamer. ``none``: raw returns. A published method: 0 is a return of 0 (on Atari random
    play), 1 is that method's last score. A file ending in .csv: columns task, low, high.

    Raises:
        UserError: an unknown name, a file that cannot be used, or no task that has a scale.
    """
    if name == "none":
        return dict.fromkeys(tasks, (0.0, 1.0)), "return"
    if name.endswith(".csv"):
        found = _checked(_from_file(Path(name), tasks), name)
        return found, f"score normalised by {Path(name).name}"
    if name == "auto":
        return _auto(tasks, published)
    if name not in published.methods:
        raise UserError(f"Unknown normalisation {name!r}{suggest(name, published.methods)}. "
                        "Expected auto, none, a published method "
                        f"({', '.join(published.methods)}) or a .csv file with the columns "
                        "task, low, high.")
    found = {task: (_random(task, published), point.score)
             for task in tasks if (point := published.point(task, name))}
    return _checked(found, name), f"score relative to published {name}"


def normalise(scores: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """Returns (scores - low) / (high - low) for bounds (low, high)."""
    low, high = bounds
    return (scores - low) / (high - low)


def _auto(tasks: Sequence[str], published: Published) -> tuple[Scale, str]:
    found: Scale = {}
    for task in tasks:
        human = published.point(task, "human")
        if suite_of(task) == "dmc":
            found[task] = (0.0, _DMC_BEST)
        elif human is not None:
            found[task] = (_random(task, published), human.score)
    if not found:
        return dict.fromkeys(tasks, (0.0, 1.0)), "return (no scale known)"
    words = {"dmc": "return / 1000", "atari": "human-normalised score"}
    suites = sorted({suite_of(task) for task in found}, reverse=True)
    return found, " and ".join(words[suite] for suite in suites)


def _random(task: str, published: Published) -> float:
    point = published.point(task, "random")
    return point.score if point else 0.0


def _from_file(path: Path, tasks: Sequence[str]) -> Scale:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        found = {task_name(line["task"]) or line["task"]: (float(line["low"]), float(line["high"]))
                 for line in lines}
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"Cannot normalise by {path}: {error}. Expected a CSV file with the "
                        "columns task, low, high.") from error
    return {task: found[task] for task in tasks if task in found}


def _checked(found: Scale, name: str) -> Scale:
    if not found:
        raise UserError(f"None of the tasks has a scale in {name!r}. Choose another "
                        "--normalize, such as none.")
    for task, (low, high) in found.items():
        if not (np.isfinite([low, high]).all() and high != low):
            raise UserError(f"Cannot normalise {task} by {name!r}: it would map {low} to 0 and "
                            f"{high} to 1.")
    return found
