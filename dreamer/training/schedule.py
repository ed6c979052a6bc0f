"""When updates are due, as a function of the step."""

from __future__ import annotations

from dataclasses import dataclass, replace


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

    def after(self, before: UpdateSchedule, step: int) -> UpdateSchedule:
        """Returns the schedule of a run that had another one until `step`.

        A new ratio counts from there: the updates due by then stay as many.
        """
        if (self.every, self.updates) == (before.every, before.updates):
            return before
        if step < before.prefill:
            return self
        return replace(self, prefill=step, pretrain=before.due(step))
