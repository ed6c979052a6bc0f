"""Measuring in turn: A B A B ..., so that what disturbs a machine disturbs all alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from statistics import median
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)
Measure = Callable[[int], float]
"""Does something that many times; returns the seconds."""


def in_turn(measures: Mapping[Name, Measure], rounds: int, shortest: float) -> dict[Name, float]:
    """Measures each in every round.

    Args:
        measures: By name; each is run once beforehand, unmeasured, and once to see how long it
            takes.
        rounds: How often.
        shortest: Seconds that one measurement should take at least: what is faster is repeated.

    Returns:
        The median seconds of doing each once.
    """
    counts = {}
    for name, measure in measures.items():
        measure(1)
        counts[name] = max(1, math.ceil(shortest / max(measure(1), 1e-6)))
    found: dict[Name, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            found[name].append(measure(counts[name]) / counts[name])
    return {name: median(seconds) for name, seconds in found.items()}
