"""The loop: prefill, collect, update at a fixed ratio, evaluate, log, save; resume after a stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import Any

from dreamer.data.replay import Replay
from dreamer.envs.processes.pool import EnvPool
from dreamer.errors import EnvError, UserError
from dreamer.io.disk import Patience, room_warning
from dreamer.runs.checkpoints import Checkpoint, Checkpoints
from dreamer.training.collector import Policy
from dreamer.training.interrupts import Interrupt, StopRequested
from dreamer.training.nonfinite import NonFiniteError, NonFiniteGuard
from dreamer.training.overlap import Background, Lag
from dreamer.training.reports import Reports
from dreamer.training.resumption import Collection
from dreamer.training.schedule import UpdateSchedule
from dreamer.training.trained_agent import TrainedAgent

# What every checkpoint counts, beside the agent's arrays.
_COUNTS = ("agent_steps", "update", "next_episode", "eval_episode", "wall_time")
_TIMED_UPDATES = 5  # after the first, which also traces; they tell what the run will cost


class Trainer:
    """Trains an agent to a number of environment steps.

    Steps are environment frames, action repeats included; agent steps and updates are counted
    apart. Complete episodes go to the replay under the id <prefix><number>.

    Args:
        agent: What learns.
        pool: Environments that collect.
        replay: Where episodes go and batches come from.
        reports: Evaluates and logs.
        checkpoints: Where the state is saved.
        interrupt: Signals that ask for a stop.
        patience: Waits where the disk is full.
        guard: Watches for updates that are not finite.
        seed: The run's.
        prefix: Of its episodes' ids.
        exact: Whether to go on from a checkpoint bit for bit, collecting anew what came after it.
        schedule: Ratio of updates to steps.
        batch: batch_size, batch_length and prefetch of the replay's batches.
        steps: Where to end.
        overlap: Whether to collect a round beside the updates of the round before.
        forecast: Makes a message from (seconds an update, frames a second), shown once both have
            been measured; None for silence.

    Attributes:
        update: Updates made.
    """

    def __init__(
        self,
        *,
        agent: TrainedAgent,
        pool: EnvPool,
        replay: Replay,
        reports: Reports,
        checkpoints: Checkpoints,
        interrupt: Interrupt,
        patience: Patience,
        guard: NonFiniteGuard,
        seed: int,
        prefix: str,
        exact: bool,
        schedule: UpdateSchedule,
        batch: dict[str, int],
        steps: int,
        overlap: bool = False,
        forecast: Callable[[float, float], str] | None = None,
    ):
        self.update = 0
        self._agent, self._pool, self._replay = agent, pool, replay
        self._reports, self._logger, self._checkpoints = reports, reports.logger, checkpoints
        self._interrupt, self._patience, self._guard = interrupt, patience, guard
        self._schedule, self._batch = schedule, batch
        self._steps, self._overlap, self._forecast = steps, overlap, forecast
        self._round_end = 0  # the step at which the round under way ends
        self._collection = Collection(
            pool, replay, self._logger, patience, seed=seed, prefix=prefix, exact=exact
        )
        self._frames_per_second = 0.0
        self._traced = False

    @property
    def agent_steps(self) -> int:
        """Actions carried out by the training environments."""
        return self._collection.agent_steps

    @property
    def step(self) -> int:
        """Environment frames of the training environments."""
        return self.agent_steps * self._pool.action_repeat

    @property
    def last_return(self) -> float | None:
        """Mean return of the last evaluation; None before the first."""
        return self._reports.last_return

    # --------------------------------------------------------------- the loop

    def resume(self) -> bool:
        """Goes on from the newest sound checkpoint and the episodes on disk, if there are any.

        Episodes completed after the checkpoint are kept: their steps count as done, and the
        updates that are then due are made up for. An exact run draws no batch from them, collects
        them again and thereby writes the same files anew.
        """
        checkpoint = self._checkpoints.load_latest(self._agent.state_arrays())
        state = self._load(checkpoint) if checkpoint else {}
        self.update = state.get("update", 0)
        self._reports.evaluator.next_episode = state.get("eval_episode", 0)
        self._round_end = state.get("round_end", 0)
        self._guard.count = state.get("nonfinite", 0)
        try:
            own = self._collection.resume(state, self._interrupt.check)
        except (KeyError, TypeError, ValueError) as error:
            raise _foreign(checkpoint, error) from error
        self._logger.resume(checkpoint.step if checkpoint else 0, state.get("wall_time", 0))
        return checkpoint is not None or own

    def _load(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """Puts the agent back, and returns the checkpoint's state."""
        try:
            self._agent.load_arrays(checkpoint.arrays)
            state = {**checkpoint.state, **{key: checkpoint.state[key] for key in _COUNTS}}
        except (KeyError, ValueError) as error:
            raise _foreign(checkpoint, error) from error
        done = state.get("done", {})
        self._reports.done = {name: done.get(name) for name in self._reports.done}
        self._reports.last_return = state.get("last_return")
        return state

    def run(self) -> None:
        """Trains to the end.

        Raises:
            StopRequested: After a signal; the checkpoint is written by then.
            EnvError: An environment failed too often; likewise.
            DiskFullError: There was no room; the last checkpoint stands.
            NonFiniteError: Too many updates were not finite; likewise.
        """
        self._warn_of_room()
        try:
            self._prefill()
            if self.step < min(self._round_end, self._steps):
                self._collect()  # a stop cut the round short
            self._make_updates()
            while self.step < self._steps:
                self._report()
                if self._overlap:
                    self._collect_beside_updates()
                else:
                    self._collect()
                    self._make_updates()
            self._make_updates()
            self._report(final=True)
            self._patience.keep_trying(self._save)  # in here: a stop may cut its waiting short
        except (StopRequested, EnvError):
            self._save()
            raise
        except NonFiniteError as error:
            last = self._checkpoints.newest() or "none was written yet"
            raise NonFiniteError(f"{error}; the last good checkpoint stays: {last}") from None

    def _warn_of_room(self) -> None:
        timesteps = max(0, self._steps - self.step) / self._pool.action_repeat
        needed = int(timesteps * self._replay.timestep_bytes)
        warning = room_warning(
            self._replay.directory, needed, f"the episodes of {self._steps - self.step:,} steps"
        )
        if warning:
            self._logger.message(warning)

    def _prefill(self) -> None:
        policy = self._interrupt.guard(self._collection.random_policy())
        start, before = time.monotonic(), self.step
        while self.step < self._schedule.prefill or not len(self._replay):
            missing = max(self._schedule.prefill - self.step, 1)
            self._collection.collect(policy, min(self._agent_steps(missing), 100))
        self._time_frames(before, start)

    def _collect_beside_updates(self) -> None:
        """Makes the updates due by now while a round is collected, which is stored afterwards."""
        due = self._schedule.due(self.step)
        lag = Lag(due, lambda: self.update)
        policy = lag.watch(self._policy("train"))
        self._collection.hold()
        try:
            with Background(lambda leaving: self._collect(leaving(policy))):
                self._make_updates(due)
        finally:
            self._collection.store()
        self._logger.scalars(lag.scalars())

    def _collect(self, policy: Policy | None = None) -> None:
        policy = self._interrupt.guard(policy or self._policy("train"))
        if self.step >= self._round_end:
            self._round_end = self.step + self._schedule.every
        start, before = time.monotonic(), self.step
        steps = min(self._round_end, self._steps) - self.step
        self._collection.collect(policy, self._agent_steps(steps))
        self._time_frames(before, start)

    def _time_frames(self, before: int, start: float) -> None:
        if self.step > before:
            self._frames_per_second = (self.step - before) / (time.monotonic() - start)
            self._logger.scalars({"fps/collect": self._frames_per_second})

    def _make_updates(self, due: int | None = None) -> None:
        count = (self._schedule.due(self.step) if due is None else due) - self.update
        if count <= 0:
            return
        start, timed = 0.0, 0
        self._agent.progress(self.step, self.update)
        with closing(self._learn(count)) as learning:
            for updates, batch, made_of in learning:
                metrics = {key: float(value) for key, value in made_of.items()}
                self.update += updates
                self._logger.scalars({f"model/{key}": value for key, value in metrics.items()})
                self._watch(self.update - updates, batch, metrics)
                timed = timed + updates if start else 0  # the first call also traces
                start = start or time.monotonic()
                if timed >= _TIMED_UPDATES:
                    self._say_cost((time.monotonic() - start) / timed)
        if timed:
            self._logger.scalars({"fps/train": timed / (time.monotonic() - start)})

    def _watch(self, first: int, batch: Any, metrics: Mapping[str, float]) -> None:
        """Hears of the updates that one call made, from the number `first` on."""
        self._guard.check(first, batch, metrics)

    def _learn(self, count: int) -> Generator[tuple[int, Any, Mapping[str, Any]], None, None]:
        """Makes updates; yields how many were made at once, of what batch, and their metrics."""
        with closing(self._replay.batches(self.update, count, **self._batch)) as batches:
            for batch in batches:
                self._interrupt.check()
                self._trace(batch)
                yield 1, batch, self._agent.train_step(batch, self.update)

    def _trace(self, batch: dict[str, Any]) -> None:
        """Before the first update: what takes long at full size, a signal may break off."""
        if not self._traced:
            with self._interrupt.at_once():
                self._agent.trace(batch)
            self._traced = True

    def _say_cost(self, seconds_per_update: float) -> None:
        if self._forecast and self._frames_per_second:
            self._logger.message(self._forecast(seconds_per_update, self._frames_per_second))
            self._forecast = None

    def _counters(self) -> dict[str, float]:
        return {
            "agent_steps": self.agent_steps, "updates": self.update, "episodes": len(self._replay),
            "dropped_episodes": self._collection.dropped,
            "damaged_episodes": len(self._replay.set_aside()),
            "nonfinite_updates": self._guard.count,
        }  # fmt: skip

    def _report(self, final: bool = False) -> None:
        policy = self._interrupt.guard(self._policy("eval"))
        self._reports.report(self.step, policy, self._counters(), final)
        if self._reports.due("save", self.step) and not final:
            self._patience.keep_trying(self._save)

    def _save(self) -> None:
        done = {**self._reports.done, "save": self.step}
        state = {
            **self._collection.state(), "agent_steps": self.agent_steps, "update": self.update,
            "eval_episode": self._reports.evaluator.next_episode, "done": done,
            "wall_time": self._logger.wall_time, "nonfinite": self._guard.count,
            "round_end": self._round_end, "last_return": self.last_return,
        }  # fmt: skip
        self._checkpoints.save(self.step, self._agent.state_arrays(), state)
        self._reports.done = done

    def _policy(self, mode: str) -> Policy:
        def policy(timesteps, state):
            self._agent.progress(self.step, self.update)
            return self._agent.policy(timesteps, state, mode)

        return policy

    def _agent_steps(self, steps: int) -> int:
        return -(-steps // self._pool.action_repeat)


def _foreign(checkpoint: Checkpoint | None, error: Exception) -> UserError:
    return UserError(
        f"checkpoint {checkpoint and checkpoint.path} is not one of this run's ({error}); move it "
        "away to go on without it"
    )
