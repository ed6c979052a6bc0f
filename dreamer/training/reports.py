"""What a training run reports on the way: evaluations, films, lines of metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dreamer.io.disk import Patience
from dreamer.io.files import DiskFullError
from dreamer.logs.logger import Logger
from dreamer.training.collector import Policy
from dreamer.training.evaluation import Evaluation, Evaluator
from dreamer.training.films import film_evaluation, film_open_loop
from dreamer.training.interrupts import Interrupt, StopRequested
from dreamer.training.schedule import is_due
from dreamer.training.trained_agent import TrainedAgent


@dataclass(frozen=True)
class Intervals:
    """How often something is done, in steps; 0 for never.

    Attributes:
        log, evaluate, film, save: Metrics line, evaluation, open-loop film, checkpoint.
    """

    log: int
    evaluate: int
    film: int
    save: int


class Reports:
    """Makes evaluations, films and lines of metrics when they are due.

    Args:
        agent: Whose noise an evaluation that does not come to its end must give back.
        evaluator: Environments that evaluate.
        logger: Takes metrics and films.
        intervals: How often.
        patience: Waits where the disk is full.
        interrupt: Between films, each of which takes seconds, a stop leaves out the rest.

    Attributes:
        done: The step at which each was last done, by the name of its interval.
        last_return: Mean return of the last evaluation; None before the first.
    """

    def __init__(
        self,
        agent: TrainedAgent,
        evaluator: Evaluator,
        logger: Logger,
        intervals: Intervals,
        patience: Patience,
        interrupt: Interrupt,
    ) -> None:
        self.evaluator, self.logger = evaluator, logger
        self.done: dict[str, int | None] = dict.fromkeys(vars(intervals))
        self.last_return: float | None = None
        self._agent, self._intervals, self._patience = agent, intervals, patience
        self._interrupt = interrupt

    def due(self, what: str, step: int) -> bool:
        """Whether something is to be done at this step."""
        return is_due(getattr(self._intervals, what), step, self.done[what])

    def report(
        self, step: int, policy: Policy, counters: Mapping[str, float], final: bool = False
    ) -> None:
        """One line of metrics at most, in which an evaluation's results stand with the rest.

        Args:
            step: Now.
            policy: To evaluate.
            counters: For the line.
            final: Whether the run ends here, which makes all of it due.
        """
        if self.due("evaluate", step) or (final and self.done["evaluate"] != step):
            self._evaluate(step, policy)
            self._write(step, counters)
        elif self.due("log", step) or (final and self.done["log"] != step):
            self._write(step, counters)

    def _evaluate(self, step: int, policy: Policy) -> None:
        start = time.monotonic()
        calls = self._agent.policy_calls

        def attempt() -> Any:
            try:
                return self.evaluator.run(policy)
            except BaseException:
                self._agent.policy_calls = calls  # it is done again, with the same noise
                raise

        evaluation = self._patience.keep_trying(attempt)
        self.last_return = evaluation.scalars()["eval/return"]
        self.logger.scalars(evaluation.scalars())
        self.logger.scalars({"eval/seconds": time.monotonic() - start})
        self._film(evaluation, step)
        self.done["evaluate"] = step

    def _film(self, evaluation: Evaluation, step: int) -> None:
        due = self.due("film", step)
        check = self._interrupt.check
        try:
            film_evaluation(self.logger, evaluation.filmed, step, check)
            if due:
                film_open_loop(self.logger, self._agent, evaluation.kept, step, check)
        except DiskFullError as error:  # a film is no reason to stop
            self.logger.message(f"warning: {error} -- the run goes on without this film")
        except StopRequested:
            # The evaluation is whole and counts; the loop stops at its next step or update.
            self.logger.message("the stop leaves out the other films of this evaluation")
            return
        if due:
            self.done["film"] = step

    def _write(self, step: int, counters: Mapping[str, float]) -> None:
        self._patience.keep_trying(lambda: self.logger.write(step, **counters))
        self.done["log"] = step
