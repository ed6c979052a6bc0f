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


def is_due(interval: int, step: int, last: int | None) -> bool:
    """Whether something that belongs at every multiple of an interval is to be done at `step`.

    Args:
        interval: In steps; 0 for never.
        step: Now.
        last: The step at which it was last done; None if never, which makes it due at once.
    """
    if not interval:
        return False
    return last is None or step // interval > last // interval
