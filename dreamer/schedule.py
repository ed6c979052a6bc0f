"""When updates, evaluations, logs and checkpoints are due, as functions of the step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UpdateSchedule:
    """The exact ratio of updates to environment steps.

    Attributes:
        prefill: Steps with random actions, before any update.
        pretrain: Updates as soon as the prefill is complete.
        every: Steps in a round.
        updates: Updates in a round.
    """

    prefill: int
    pretrain: int
    every: int
    updates: int

    def due(self, step: int) -> int:
        """Updates that must have been made by the time the environment is at `step`.

        Spread evenly over a round, so that a run that stops within one keeps the ratio.
        """
        if step < self.prefill:
            return 0
        return self.pretrain + (step - self.prefill) * self.updates // self.every


class Every:
    """Tells once for every multiple of an interval, and at the first call.

    Args:
        interval: In steps; 0 for never.
        last: The step it last told at, or None; a resumed run passes its own.
    """

    def __init__(self, interval: int, last: int | None = None):
        self._interval, self._last = interval, last

    def __call__(self, step: int) -> bool:
        if not self._interval:
            return False
        if self._last is not None and step // self._interval <= self._last // self._interval:
            return False
        self._last = step
        return True
