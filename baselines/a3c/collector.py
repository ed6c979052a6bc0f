"""A3C in the training loop: a round of steps contains its updates; nothing is replayed or kept."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from baselines.a3c.agent import A3C
from baselines.a3c.learner import ActorLearner
from baselines.a3c.processes import Learners
from dreamer.config.config import Config
from dreamer.envs.processes.pool import EnvPool
from dreamer.logs.logger import Logger
from dreamer.training.build import Experience, Setup
from dreamer.training.collector import Policy
from dreamer.training.interrupts import Interrupt
from dreamer.training.nonfinite import NonFiniteGuard


class A3CCollector:
    """Collects with actor-learners, which make the updates themselves.

    Between two calls of `collect` all of them wait, so that evaluations and checkpoints see the
    state of one moment.

    Args:
        agent: The agent.
        config: The run's config.
        pool: Environments of the synchronous form; otherwise each learner has its own.
        logger: Takes metrics and messages.
        interrupt: Signals that ask for a stop.
        guard: Watches for updates that are not finite.
    """

    def __init__(
        self,
        agent: A3C,
        config: Config,
        pool: EnvPool,
        logger: Logger,
        interrupt: Interrupt,
        guard: NonFiniteGuard,
    ) -> None:
        self._agent, self._config, self._pool = agent, config, pool
        self._logger, self._interrupt, self._guard = logger, interrupt, guard
        self._shared = agent.shared
        self._learners: Learners | None = None
        self._single: ActorLearner | None = None

    @property
    def agent_steps(self) -> int:
        """Actions carried out by all learners."""
        return int(self._shared["steps"].sum())

    @property
    def updates(self) -> int:
        """Updates made by all learners."""
        return int(self._shared["updates"].sum())

    def counters(self) -> dict[str, float]:
        """Returns the number of episodes that an environment's failure ended; none is stored."""
        dropped = int(self._shared["dropped"].sum())
        return {"episodes": 0, "dropped_episodes": dropped, "damaged_episodes": 0}

    def resume(self, state: Mapping[str, Any], check: Callable[[], None]) -> bool:
        """Continues from a checkpoint, whose arrays hold all counts; later steps are lost."""
        if state and self._config.deterministic:
            self._logger.message(
                "warning: not bit for bit what it would have been: a3c begins new episodes where "
                "others were under way"
            )
        return False

    def start(self, agent_steps: int) -> None:
        """Starts the learners, if there is anything to collect."""
        if not agent_steps:
            return
        if self._config.a3c.synchronous:
            self._single = ActorLearner(self._agent, self._pool, 0, self._log_episode)
            return
        self._pool.close()  # only its spaces were needed; each learner has environments of its own
        # No number of the random streams of actions comes twice in a run: a learner uses one for
        # each step and each beginning of an episode.
        calls = int(self._shared["steps"].sum() + self._shared["episodes"].sum())
        self._learners = Learners(
            self._config, self._shared.descriptor, self._config.envs.num_envs, calls
        )

    def close(self) -> None:
        """Ends the learners' processes."""
        if self._learners:
            self._learners.close()

    def random_policy(self) -> Policy:
        """Never called: there is no replay to fill."""
        raise NotImplementedError

    def withhold_episodes(self) -> contextlib.AbstractContextManager[None]:
        """Does nothing: no batch is drawn from episodes."""
        return contextlib.nullcontext()

    def collect(self, policy: Policy, agent_steps: int) -> None:
        """Lets the learners collect and learn until they have taken that many steps together.

        Args:
            policy: Not used: the learners act with the newest shared parameters.
            agent_steps: How many.
        """
        del policy
        start, made = time.monotonic(), self.updates
        limit = self.agent_steps + agent_steps
        self._shared["limit"][0] = limit
        try:
            if self._learners:
                self._run_processes(self._learners)
            elif self._single:
                self._run_single(self._single, limit)
        finally:
            self._agent.refresh()
        self._logger.scalars({"fps/train": (self.updates - made) / (time.monotonic() - start)})

    def _run_processes(self, learners: Learners) -> None:
        def stop() -> None:
            self._shared["limit"][0] = 0

        check = self._interrupt.check
        for metrics in learners.run(check, self._log_episode, self._guard.check, stop):
            self._log_metrics(metrics)

    def _run_single(self, learner: ActorLearner, limit: int) -> None:
        while self.agent_steps < limit:
            self._interrupt.check()
            metrics, rollout = learner.round()
            self._log_metrics(metrics)
            self._guard.check(self.updates - 1, rollout, metrics)

    def _log_metrics(self, metrics: Mapping[str, float]) -> None:
        self._logger.scalars({f"model/{k}": v for k, v in metrics.items()})

    def _log_episode(self, episode_return: float, length: int) -> None:
        frames = length * self._pool.action_repeat
        self._logger.scalars({"train/return": episode_return, "train/length": frames})

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps besides the agent's arrays: nothing."""
        return {"next_episode": int(self._shared["episodes"].sum())}


def make_experience(setup: Setup) -> Experience:
    """Returns the collector of a run; there are no batches."""
    agent = setup.agent
    assert isinstance(agent, A3C)
    parts = (setup.config, setup.pool, setup.logger, setup.interrupt, setup.guard)
    return A3CCollector(agent, *parts), None
