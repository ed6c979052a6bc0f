"""A3C in the training loop: a round of steps contains its updates; nothing is replayed or kept."""

from __future__ import annotations

import contextlib
import select
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from baselines.a3c.a3c import A3C
from baselines.a3c.actor_learner import ActorLearner
from dreamer.config.config import Config
from dreamer.envs.processes.pool import EnvRestartWarning
from dreamer.errors import EnvError, UserError
from dreamer.logs.terminal import Phase
from dreamer.system.children import ChildProcess
from dreamer.system.messages import Message, OnWait
from dreamer.training.build import Experience, Setup
from dreamer.training.collector import Policy
from dreamer.training.interrupts import StopRequested

CLOSE_TIMEOUT = 10.0  # seconds in which a learner may end by itself
_ONE_THREAD = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


class LearnerError(EnvError):
    """An actor-learner's process failed; the message has its traceback or its last output."""

    def __init__(self, number: int, message: str, traceback: str = ""):
        super().__init__(number, "died", f"actor-learner {number} {message}", traceback)
        self.args = (f"{self.message}\n{traceback.rstrip()}",)


class LearnerProcess(ChildProcess):
    """The process of one actor-learner. Its random numbers for actions begin at call `calls`."""

    def __init__(self, config: Config, number: int, descriptor: int, calls: int):
        self.number = number
        super().__init__(
            "baselines.a3c.actor_learner", str(descriptor), str(number), pass_fds=[descriptor],
            variables=dict.fromkeys(_ONE_THREAD, "1"),
        )  # fmt: skip
        self.send({"values": config.flat(), "agent": config.agent, "calls": calls})

    def fileno(self) -> int:
        """Returns the socket's descriptor, for `select`."""
        return self.socket.fileno()

    def receive(self, timeout: float | None = None, on_wait: OnWait | None = None) -> Message:
        """As `ChildProcess.receive`; also raises EnvError if the learner's environments failed."""
        message, arrays = super().receive(timeout, on_wait)
        if "environment" in message:
            raise EnvError(*message["environment"])
        return message, arrays

    def failure(self, kind: str, message: str, details: str) -> LearnerError:
        return LearnerError(self.number, f"{kind}: {message}", details)


class A3CCollector:
    """Collects with actor-learners, which make the updates themselves.

    They are processes, or in the synchronous form one learner in this process. Between two calls of
    `collect` all of them wait, so that evaluations and checkpoints see the state of one moment.
    """

    def __init__(self, setup: Setup) -> None:
        assert isinstance(setup.agent, A3C)
        self._agent, self._shared = setup.agent, setup.agent.shared
        self._config, self._pool, self._logger = setup.config, setup.pool, setup.logger
        self._interrupt, self._guard = setup.interrupt, setup.guard
        self._processes: list[LearnerProcess] = []
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

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps besides the agent's arrays."""
        return {"next_episode": int(self._shared["episodes"].sum())}

    def saved(self) -> None:
        """Does nothing: no episode is stored."""

    def resume(self, state: Mapping[str, Any], check: Callable[[], None]) -> bool:
        """Continues from a checkpoint, whose arrays hold all counts; later steps are lost."""
        if state and self._config.deterministic:
            self._logger.message(
                "warning: the resumed run is not bit for bit the same: a3c begins new episodes in "
                "place of those that were running"
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
        # A learner uses one number of its random stream for each step and each start of an episode.
        # It starts after all numbers that the run has used, so that none is used twice.
        calls = int(self._shared["steps"].sum() + self._shared["episodes"].sum())
        memory = self._agent.descriptor
        try:
            for number in range(self._config.envs.num_envs):
                self._processes.append(LearnerProcess(self._config, number, memory, calls))
            for process in self._processes:
                count = len(self._processes)
                self._logger.progress(
                    Phase("starting actor-learners", process.number, count, "processes")
                )
                process.receive()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the learners' processes."""
        for process in self._processes:
            process.socket.close()
        deadline = time.monotonic() + CLOSE_TIMEOUT
        while self._processes:
            self._processes.pop().close(max(0.0, deadline - time.monotonic()))

    def random_policy(self) -> None:
        """Returns None, because there is no replay to fill."""

    def free_environments(self) -> None:
        """Does nothing, because A3C always evaluates in environments of their own."""

    def withhold_episodes(self) -> contextlib.AbstractContextManager[None]:
        """Does nothing: no batch is drawn from episodes."""
        return contextlib.nullcontext()

    def collect(self, policy: Policy, agent_steps: int) -> None:
        """Lets the learners collect and learn until together they took `agent_steps` more steps.

        They act with the newest shared parameters, not with `policy`.

        Raises:
            EnvError: A learner failed, or an environment too often; the others have paused.
        """
        start, made = time.monotonic(), self.updates
        self._shared["limit"][0] = self.agent_steps + agent_steps
        try:
            if self._single:
                self._run_single(self._single)
            else:
                self._run_processes()
        finally:
            self._agent.refresh()
        self._logger.scalars({"fps/train": (self.updates - made) / (time.monotonic() - start)})

    def _show(self, first: int, total: int) -> None:
        """Shows how many of the round's steps are taken; `first` were taken before it."""
        repeat, steps = self._pool.action_repeat, self.agent_steps
        done = min(steps - first, total) * repeat
        self._logger.progress(Phase("learning", done, total * repeat, "steps"), steps * repeat)

    def _run_single(self, learner: ActorLearner) -> None:
        first = self.agent_steps
        while self.agent_steps < self._shared["limit"][0]:
            self._show(first, int(self._shared["limit"][0]) - first)
            self._interrupt.check()
            metrics, rollout = learner.round()
            self._log_metrics(metrics)
            self._guard.check(self.updates - 1, rollout, metrics)

    def _run_processes(self) -> None:
        """Lets all processes continue to the shared limit of steps, and handles their messages."""
        for process in self._processes:
            process.send({"go": True})
        running, first = list(self._processes), self.agent_steps
        total = int(self._shared["limit"][0]) - first
        raised: Exception | None = None
        while running:
            self._show(first, total)
            try:
                for process in select.select(running, [], [], 1.0)[0]:
                    self._handle(process, running)
                if raised is None:
                    self._interrupt.check()
            except (EnvError, UserError, StopRequested) as error:
                self._shared["limit"][0] = 0
                raised = raised or error  # raised below, once all learners have paused
        if raised is not None:
            raise raised

    def _handle(self, process: LearnerProcess, running: list[LearnerProcess]) -> None:
        """Handles a process's message; a process that paused or failed leaves `running`."""
        try:
            message, arrays = process.receive()
        except (EnvError, UserError):
            running.remove(process)
            raise
        if "done" in message:
            running.remove(process)
            self._log_metrics(message["done"])
        elif "update" in message:
            self._guard.check(message["update"], arrays, message["metrics"])
        elif "warning" in message:
            text = f"actor-learner {process.number}: {message['warning']}"
            warnings.warn(text, EnvRestartWarning, stacklevel=3)
        else:
            self._log_episode(message["return"], message["length"])

    def _log_metrics(self, metrics: Mapping[str, float]) -> None:
        self._logger.scalars({f"model/{k}": v for k, v in metrics.items()})

    def _log_episode(self, episode_return: float, length: int) -> None:
        frames = length * self._pool.action_repeat
        self._logger.scalars({"train/return": episode_return, "train/length": frames})


def make_experience(setup: Setup) -> Experience:
    """Returns the collector of a run; there are no batches."""
    return A3CCollector(setup), None
