"""The loop: prefill, then collect, update, evaluate, log and save in turn; resume after a stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np

from dreamer.errors import EnvError, UserError
from dreamer.io.disk import RetryWhileDiskFull
from dreamer.runs.checkpoints import Checkpoint, Checkpoints
from dreamer.training.collector import Policy
from dreamer.training.interfaces import BatchSource, TrainableAgent, TrainingCollector
from dreamer.training.interrupts import Interrupt, StopRequested
from dreamer.training.nonfinite import NonFiniteError, NonFiniteGuard
from dreamer.training.overlap import Background, Lag
from dreamer.training.reports import Reporter
from dreamer.training.schedule import UpdateSchedule

_COUNTERS = ("agent_steps", "update", "next_episode", "eval_episode", "wall_time")
_TIMED_UPDATES = 5  # for the forecast; the first update, which also traces, is not timed
_PREFILL_STEPS = 100  # agent steps between two checks whether the prefill is complete


class Trainer:
    """Trains an agent to a number of environment steps.

    Steps are environment frames, action repeats included; agent steps and updates are counted
    apart. `run` is the loop; the methods below it are its parts, in order.

    Args:
        agent: The agent to train.
        collector: Collects experience.
        batches: Where the batches of updates come from; None if the collector makes the updates.
        reporter: Evaluates and logs.
        checkpoints: Where the state is saved.
        interrupt: Signals that ask for a stop.
        retry_while_disk_full: Repeats what fails while the disk is full.
        guard: Watches for updates that are not finite.
        schedule: The ratio of updates to steps.
        steps: The step at which training ends.
        action_repeat: Environment frames in an agent step.
        overlap: Whether to collect a round while the updates of the round before are made.
        forecast: Makes a message from (seconds an update, frames a second), shown once both have
            been measured; None: no message.
    """

    def __init__(
        self,
        *,
        agent: TrainableAgent,
        collector: TrainingCollector,
        batches: BatchSource | None,
        reporter: Reporter,
        checkpoints: Checkpoints,
        interrupt: Interrupt,
        retry_while_disk_full: RetryWhileDiskFull,
        guard: NonFiniteGuard,
        schedule: UpdateSchedule,
        steps: int,
        action_repeat: int,
        overlap: bool = False,
        forecast: Callable[[float, float], str] | None = None,
    ) -> None:
        self._agent, self._collector, self._batches = agent, collector, batches
        self._reporter, self._logger = reporter, reporter.logger
        self._checkpoints, self._interrupt = checkpoints, interrupt
        self._retry_while_disk_full = retry_while_disk_full
        self._guard, self._schedule = guard, schedule
        self._steps, self._action_repeat = steps, action_repeat
        self._overlap, self._forecast = overlap, forecast
        self._updates = 0  # made here, from batches
        self._round_end = 0  # the step at which the current round ends
        self._frames_per_second = 0.0
        self._traced = False

    @property
    def step(self) -> int:
        """Environment frames of the training environments."""
        return self._collector.agent_steps * self._action_repeat

    @property
    def update(self) -> int:
        """Updates made."""
        return self._updates + self._collector.updates

    @property
    def last_return(self) -> float | None:
        """Mean return of the last evaluation; None before the first."""
        return self._reporter.last_return

    # --------------------------------------------------------------- the loop

    def run(self) -> None:
        """Trains to the end.

        Raises:
            StopRequested: After a signal; a checkpoint has been written.
            EnvError: An environment failed too often; a checkpoint has been written.
            DiskFullError: The disk is full; the last checkpoint stays.
            NonFiniteError: Too many updates were not finite; the last checkpoint stays.
        """
        self._collector.start(self._agent_steps(max(0, self._steps - self.step)))
        try:
            self._prefill()
            if self.step < min(self._round_end, self._steps):
                self._collect()  # the rest of a round that a stop has cut short
            self._make_updates()
            while self.step < self._steps:
                self._report()
                if self._overlap:
                    self._collect_during_updates()
                else:
                    self._collect()
                    self._make_updates()
            self._make_updates()
            self._report(final=True)
            self._retry_while_disk_full(self._save)  # within `try`: a stop may end its waiting
        except (StopRequested, EnvError):
            self._save()
            raise
        except NonFiniteError as error:
            last = self._checkpoints.newest() or "none was written yet"
            raise NonFiniteError(f"{error}; the last good checkpoint stays: {last}") from None
        finally:
            self._collector.close()

    def _prefill(self) -> None:
        """Takes random actions until the schedule's prefill is complete."""
        if self._batches is None:
            return
        policy = self._interrupt.guard(self._collector.random_policy())
        start, before = time.monotonic(), self.step
        while self.step < self._schedule.prefill or not self._batches.ready:
            missing = self._agent_steps(max(self._schedule.prefill - self.step, 1))
            self._collector.collect(policy, min(missing, _PREFILL_STEPS))
        self._measure_frames(before, start)

    def _collect(self, policy: Policy | None = None) -> None:
        """Collects until the end of the round."""
        policy = self._interrupt.guard(policy or self._policy("train"))
        if self.step >= self._round_end:
            self._round_end = self.step + self._schedule.every
        start, before = time.monotonic(), self.step
        steps = min(self._round_end, self._steps) - self.step
        self._collector.collect(policy, self._agent_steps(steps))
        self._measure_frames(before, start)

    def _collect_during_updates(self) -> None:
        """Collects a round while the updates due by now are made; its episodes count afterwards."""
        due = self._schedule.due(self.step)
        lag = Lag(due, lambda: self.update)
        policy = lag.measure(self._policy("train"))
        with (
            self._collector.withhold_episodes(),
            Background(lambda stoppable: self._collect(stoppable(policy))),
        ):
            self._make_updates(due)
        self._logger.scalars(lag.scalars())

    def _make_updates(self, due: int | None = None) -> None:
        """Makes the updates that are due at this step, or as many as given in all."""
        count = (self._schedule.due(self.step) if due is None else due) - self.update
        if count <= 0 or self._batches is None:
            return
        start, timed = 0.0, 0
        self._agent.progress(self.step, self.update)
        with closing(self._batches.draw(self.update, count)) as batches:
            for updates, batch in batches:
                self._interrupt.check()
                self._trace(batch)
                metrics = self._agent.train_step(batch, self.update)
                first, self._updates = self.update, self._updates + updates
                means = {f"model/{key}": np.mean(value) for key, value in metrics.items()}
                self._logger.scalars(means)
                self._guard.check(first, batch, metrics)
                timed = timed + updates if start else 0  # the first call also traces
                start = start or time.monotonic()
                if timed >= _TIMED_UPDATES:
                    self._show_forecast((time.monotonic() - start) / timed)
        if timed:
            self._logger.scalars({"fps/train": timed / (time.monotonic() - start)})

    def _trace(self, batch: Any) -> None:
        """Before the first update, traces it; a signal interrupts that, as it may take minutes."""
        if not self._traced:
            with self._interrupt.immediately():
                self._agent.trace(batch)
            self._traced = True

    def _report(self, final: bool = False) -> None:
        """Evaluates, logs and saves what is due at this step."""
        policy = self._interrupt.guard(self._policy("eval"))
        self._reporter.report(self.step, policy, self._counters(), final)
        if self._reporter.is_due("save", self.step) and not final:
            self._retry_while_disk_full(self._save)

    def _policy(self, mode: str) -> Policy:
        def policy(timesteps, state):
            self._agent.progress(self.step, self.update)
            return self._agent.policy(timesteps, state, mode)

        return policy

    def _agent_steps(self, steps: int) -> int:
        return -(-steps // self._action_repeat)

    def _counters(self) -> dict[str, float]:
        return {
            "agent_steps": self._collector.agent_steps,
            "updates": self.update,
            **self._collector.counters(),
            "nonfinite_updates": self._guard.count,
        }

    def _measure_frames(self, before: int, start: float) -> None:
        if self.step > before:
            self._frames_per_second = (self.step - before) / (time.monotonic() - start)
            self._logger.scalars({"fps/collect": self._frames_per_second})

    def _show_forecast(self, seconds_per_update: float) -> None:
        if self._forecast and self._frames_per_second:
            self._logger.message(self._forecast(seconds_per_update, self._frames_per_second))
            self._forecast = None

    # ------------------------------------------------------------ checkpoints

    def _save(self) -> None:
        reporter = self._reporter
        done = {**reporter.done, "save": self.step}
        state = {
            **self._collector.state(), "agent_steps": self._collector.agent_steps,
            "update": self.update, "eval_episode": reporter.evaluator.next_episode, "done": done,
            "wall_time": self._logger.wall_time, "nonfinite": self._guard.count,
            "round_end": self._round_end, "last_return": self.last_return,
        }  # fmt: skip
        self._checkpoints.save(self.step, self._agent.state_arrays(), state)
        reporter.done = done

    def resume(self) -> bool:
        """Continues from the newest sound checkpoint and the episodes on disk, if there are any.

        Returns:
            Whether there are any.
        Raises:
            UserError: The checkpoint is another agent's.
            StopRequested: After a signal.
        """
        checkpoint = self._checkpoints.load_latest(self._agent.state_arrays())
        state: dict[str, Any] = {}
        try:
            if checkpoint:
                self._agent.load_arrays(checkpoint.arrays)
                state = {**checkpoint.state, **{key: checkpoint.state[key] for key in _COUNTERS}}
            resumed = self._collector.resume(state, self._interrupt.check)
        except (KeyError, TypeError, ValueError) as error:
            raise _foreign(checkpoint, error) from error
        self._updates = state.get("update", 0) - self._collector.updates
        self._round_end = state.get("round_end", 0)
        self._guard.count = state.get("nonfinite", 0)
        self._reporter.resume(state)
        self._logger.resume(checkpoint.step if checkpoint else 0, state.get("wall_time", 0))
        return checkpoint is not None or resumed


def _foreign(checkpoint: Checkpoint | None, error: Exception) -> UserError:
    return UserError(
        f"checkpoint {checkpoint and checkpoint.path} is not one of this run's ({error}); move it "
        "away to go on without it"
    )
