"""The loop for A3C: rounds in which actor-learners collect and learn at the same time."""

from __future__ import annotations

import time
from typing import Any

from baselines.a3c_learner import ActorLearner
from baselines.a3c_process import Learners
from dreamer.training.trainer import Trainer


class A3CTrainer(Trainer):
    """Dreamer's loop, in which a round of steps contains its updates; nothing is replayed or kept.

    Between two rounds all learners wait: evaluations and checkpoints are of one moment.
    """

    def __init__(self, **parts: Any):
        super().__init__(**parts)
        self._exact = parts["exact"]
        self._learners: Learners | None = None
        self._single: ActorLearner | None = None
        self._episodes = 0

    @property
    def agent_steps(self) -> int:
        """Actions carried out by all learners."""
        return int(self._agent.shared["steps"].sum())

    def resume(self) -> bool:
        """Goes on from the newest sound checkpoint; steps after it are taken anew."""
        resumed = super().resume()
        self.update = int(self._agent.shared["updates"].sum())
        if resumed and self._exact:
            self._logger.message(
                "warning: not bit for bit what it would have been: a3c begins new episodes where "
                "others were under way"
            )
        return resumed

    def run(self) -> None:
        """As Trainer.run; the learners' processes live as long."""
        try:
            if self.step < self._steps:
                self._start()
            super().run()
        finally:
            if self._learners:
                self._learners.close()

    def _start(self) -> None:
        agent, config = self._agent, self._agent.config
        if config.a3c.synchronous:
            self._single = ActorLearner(agent, self._pool, 0, self._count_episode)
            return
        self._pool.close()  # it has told the spaces; each learner has environments of its own
        shared = agent.shared
        # No number of the streams that actions are drawn from comes twice in a run: with each, a
        # learner takes a step or begins an episode.
        calls = int(shared["steps"].sum() + shared["episodes"].sum())
        self._learners = Learners(config, shared.descriptor, config.envs.num_envs, calls)

    def _warn_of_room(self) -> None:
        """Nothing: no episodes are stored."""

    def _prefill(self) -> None:
        """Nothing: there is no replay to fill."""

    def _collect(self) -> None:
        shared, start, before = self._agent.shared, time.monotonic(), self.step
        made = int(shared["updates"].sum())
        steps = min(self._schedule.every, self._steps - self.step)
        limit = self.agent_steps + self._agent_steps(steps)
        shared["limit"][0] = limit
        try:
            if self._learners:
                self._run_processes()
            else:
                self._run_single(limit)
        finally:
            self._agent.refresh()
            self.update = int(shared["updates"].sum())
        self._time_frames(before, start)
        self._logger.scalars({"fps/train": (self.update - made) / (time.monotonic() - start)})

    def _run_processes(self) -> None:
        def stop() -> None:
            self._agent.shared["limit"][0] = 0

        for metrics in self._learners.run(
            self._interrupt.check, self._count_episode, self._watch, stop
        ):
            self._log_metrics(metrics)

    def _run_single(self, limit: int) -> None:
        while self.agent_steps < limit:
            self._interrupt.check()
            metrics, rollout = self._single.round()
            self._log_metrics(metrics)
            self._watch(int(self._agent.shared["updates"].sum()) - 1, rollout, metrics)

    def _log_metrics(self, metrics: dict[str, float]) -> None:
        self._logger.scalars({f"model/{k}": v for k, v in metrics.items()})

    def _counters(self) -> dict[str, float]:
        return {**super()._counters(), "dropped_episodes": int(self._agent.shared["dropped"].sum())}

    def _count_episode(self, episode_return: float, length: int) -> None:
        self._episodes += 1
        frames = length * self._pool.action_repeat
        self._logger.scalars({"train/return": episode_return, "train/length": frames})
