"""When updates are due, as a function of the step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UpdateSchedule:
    """The exact ratio of updates to environment steps."""

    prefill: int  # steps with random actions, before the first update
    pretrain: int  # updates as soon as the prefill is complete
    every: int  # steps in a round
    updates: int  # updates in a round

    def due(self, step: int) -> int:
        """Returns how many updates must have been made once the environment is at `step`.

        They are spread evenly over a round, so that a run that stops within one keeps the ratio.
        """
        if step < self.prefill:
            return 0
        return self.pretrain + (step - self.prefill) * self.updates // self.every
