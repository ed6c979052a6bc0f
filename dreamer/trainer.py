"""The loop: prefill, collect, update at a fixed ratio, evaluate, log, save; resume after a stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from dreamer.agent import Agent
from dreamer.checkpoint import Checkpoint, Checkpoints
from dreamer.collect import Collector, Episode, random_policy
from dreamer.envs.pool import EnvPool
from dreamer.errors import UserError
from dreamer.evaluation import Evaluator
from dreamer.films import film_evaluation, film_open_loop
from dreamer.interrupt import Interrupt, StopRequested
from dreamer.logger import Logger
from dreamer.replay import Replay
from dreamer.schedule import UpdateSchedule, is_due

# What every checkpoint counts, beside the agent's arrays.
_COUNTS = ("agent_steps", "update", "next_episode", "eval_episode", "wall_time")
_TIMED_UPDATES = 5  # after the first, which also traces; they tell what the run will cost


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


class Trainer:
    """Trains an agent to a number of environment steps.

    Steps are environment frames, action repeats included; agent steps and updates are counted
    apart. Complete episodes go to the replay under the id s<seed>e<number>.

    Args:
        agent: What learns.
        pool: Environments that collect.
        replay: Where episodes go and batches come from.
        evaluator: Environments that evaluate.
        logger: Takes metrics and films.
        checkpoints: Where the state is saved.
        interrupt: Signals that ask for a stop.
        seed: The run's.
        schedule: Ratio of updates to steps.
        batch: batch_size, batch_length and prefetch of the replay's batches.
        steps: Where to end.
        intervals: How often to report.
        forecast: Makes a message from (seconds an update, frames a second), shown once both have
            been measured; None for silence.
    """

    def __init__(
        self,
        *,
        agent: Agent,
        pool: EnvPool,
        replay: Replay,
        evaluator: Evaluator,
        logger: Logger,
        checkpoints: Checkpoints,
        interrupt: Interrupt,
        seed: int,
        schedule: UpdateSchedule,
        batch: dict[str, int],
        steps: int,
        intervals: Intervals,
        forecast: Callable[[float, float], str] | None = None,
    ):
        self.update = 0
        self.last_return: float | None = None
        self._agent, self._pool, self._replay = agent, pool, replay
        self._evaluator, self._logger, self._checkpoints = evaluator, logger, checkpoints
        self._interrupt, self._seed, self._schedule = interrupt, seed, schedule
        self._batch, self._steps, self._forecast = batch, steps, forecast
        self._agent_steps_before = 0  # by earlier processes of this run
        self._collector = Collector(pool, self._take_in, seed)
        self._intervals = intervals
        # The step at which each was last done, by the name of its interval.
        self._done: dict[str, int | None] = dict.fromkeys(vars(intervals))
        self._frames_per_second = 0.0

    @property
    def agent_steps(self) -> int:
        """Actions carried out by the training environments."""
        return self._agent_steps_before + self._collector.agent_steps

    @property
    def step(self) -> int:
        """Environment frames of the training environments."""
        return self.agent_steps * self._pool.action_repeat

    # --------------------------------------------------------------- the loop

    def resume(self) -> bool:
        """Goes on from the newest sound checkpoint and the episodes on disk, if there are any.

        Episodes completed after the checkpoint are kept: their steps count as done, and the
        updates that are then due are made up for.
        """
        checkpoint = self._checkpoints.load_latest()
        counts = self._load(checkpoint) if checkpoint else dict.fromkeys(_COUNTS, 0)
        self.update = counts["update"]
        self._evaluator.next_episode = counts["eval_episode"]
        own = self._own_episodes()
        collected = sum(length - 1 for length in own.values())
        self._agent_steps_before = max(counts["agent_steps"], collected)
        first = max(counts["next_episode"], max(own, default=-1) + 1)
        self._collector = Collector(self._pool, self._take_in, self._seed, first)
        self._logger.resume(checkpoint.step if checkpoint else 0, counts["wall_time"])
        return checkpoint is not None or bool(own)

    def _load(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """Puts the agent back, and returns what the checkpoint counted."""
        try:
            self._agent.load_arrays(checkpoint.arrays)
            counts = {key: checkpoint.state[key] for key in _COUNTS}
        except (KeyError, ValueError) as error:
            raise UserError(
                f"checkpoint {checkpoint.path} is not one of this run's ({error}); move it away "
                "to go on without it"
            ) from error
        done = checkpoint.state.get("done", {})
        self._done = {name: done.get(name) for name in self._done}
        self.last_return = checkpoint.state.get("last_return")
        return counts

    def run(self) -> None:
        """Trains to the end.

        Raises:
            StopRequested: After a signal; the checkpoint is written by then.
        """
        try:
            self._prefill()
            self._make_updates()
            while self.step < self._steps:
                self._report()
                self._collect()
                self._make_updates()
            self._report(final=True)
        except StopRequested:
            self._save()
            raise
        self._save()

    def _prefill(self) -> None:
        policy = self._interrupt.guard(random_policy(self._pool.act_space, self._seed))
        start, before = time.monotonic(), self.step
        while self.step < self._schedule.prefill or not len(self._replay):
            missing = max(self._schedule.prefill - self.step, 1)
            self._collector.collect(policy, min(self._agent_steps(missing), 100))
        self._time_frames(before, start)

    def _collect(self) -> None:
        policy = self._interrupt.guard(self._policy("train"))
        steps = min(self._schedule.every, self._steps - self.step)
        start, before = time.monotonic(), self.step
        self._collector.collect(policy, self._agent_steps(steps))
        self._time_frames(before, start)

    def _time_frames(self, before: int, start: float) -> None:
        if self.step > before:
            self._frames_per_second = (self.step - before) / (time.monotonic() - start)
            self._logger.scalars({"fps/collect": self._frames_per_second})

    def _make_updates(self) -> None:
        count = self._schedule.due(self.step) - self.update
        if count <= 0:
            return
        start = time.monotonic()
        self._agent.progress(self.step, self.update)
        with closing(self._replay.batches(self.update, count, **self._batch)) as batches:
            for made, batch in enumerate(batches):
                self._interrupt.check()
                metrics = self._agent.train_step(batch, self.update)
                self.update += 1
                self._logger.scalars({f"model/{k}": float(v) for k, v in metrics.items()})
                if made == 0:
                    start = time.monotonic()
                elif made == _TIMED_UPDATES:
                    self._say_cost((time.monotonic() - start) / made)
        if count > 1:
            self._logger.scalars({"fps/train": (count - 1) / (time.monotonic() - start)})

    def _say_cost(self, seconds_per_update: float) -> None:
        if self._forecast and self._frames_per_second:
            self._logger.message(self._forecast(seconds_per_update, self._frames_per_second))
            self._forecast = None

    # --------------------------------------------------------------- reports

    def _report(self, final: bool = False) -> None:
        """One line of metrics at most, in which an evaluation's results stand with the rest."""
        if self._due("evaluate") or (final and self._done["evaluate"] != self.step):
            self._run_evaluation()
            self._write()
        elif self._due("log") or (final and self._done["log"] != self.step):
            self._write()
        if self._due("save") and not final:
            self._save()

    def _due(self, what: str) -> bool:
        return is_due(getattr(self._intervals, what), self.step, self._done[what])

    def _run_evaluation(self) -> None:
        start = time.monotonic()
        evaluation = self._evaluator.run(self._interrupt.guard(self._policy("eval")))
        self.last_return = evaluation.scalars()["eval/return"]
        self._logger.scalars(evaluation.scalars())
        self._logger.scalars({"eval/seconds": time.monotonic() - start})
        film_evaluation(self._logger, evaluation.filmed, self.step)
        if self._due("film"):
            film_open_loop(self._logger, self._agent, evaluation.kept, self.step)
            self._done["film"] = self.step
        self._done["evaluate"] = self.step

    def _write(self) -> None:
        self._logger.write(
            self.step, agent_steps=self.agent_steps, updates=self.update, episodes=len(self._replay)
        )
        self._done["log"] = self.step

    def _save(self) -> None:
        self._done["save"] = self.step
        state = {
            "agent_steps": self.agent_steps,
            "update": self.update,
            "next_episode": self._collector.next_episode,
            "eval_episode": self._evaluator.next_episode,
            "wall_time": self._logger.wall_time,
            "done": self._done,
            "last_return": self.last_return,
        }
        self._checkpoints.save(self.step, self._agent.state_arrays(), state)

    # --------------------------------------------------------------- helpers

    def _policy(self, mode: str):
        def policy(records, state):
            self._agent.progress(self.step, self.update)
            return self._agent.policy(records, state, mode)

        return policy

    def _agent_steps(self, steps: int) -> int:
        return -(-steps // self._pool.action_repeat)

    def _take_in(self, episode: Episode, number: int) -> None:
        self._replay.add(episode, f"{self._prefix}{number:08d}")
        length = (len(episode["reward"]) - 1) * self._pool.action_repeat
        self._logger.scalars(
            {"train/return": float(episode["reward"].sum()), "train/length": length}
        )

    @property
    def _prefix(self) -> str:
        return f"s{self._seed}e"

    def _own_episodes(self) -> dict[int, int]:
        """Records of the episodes that this run collected, by number."""
        own = {}
        for uid, length in self._replay.lengths().items():
            number = uid.removeprefix(self._prefix)
            if number != uid and number.isdigit():
                own[int(number)] = length
        return own
