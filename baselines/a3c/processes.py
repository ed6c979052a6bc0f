"""Starts the processes of A3C's actor-learners (baselines.a3c.worker) and talks to them."""

from __future__ import annotations

import contextlib
import select
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dreamer.config.config import Config
from dreamer.envs.processes import messages as wire
from dreamer.envs.processes.pool import EnvRestartWarning
from dreamer.errors import EnvError, UserError
from dreamer.system.processes import ChildProcess, inherited_variables
from dreamer.training.interrupts import StopRequested

OnEpisode = Callable[[float, int], None]
OnUpdate = Callable[[int, Mapping[str, np.ndarray], Mapping[str, float]], None]

CLOSE_TIMEOUT = 10.0  # seconds to end by itself
_ONE_THREAD = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


class LearnerError(EnvError):
    """An actor-learner's process failed. The run is saved and ends.

    Args:
        number: The learner's number.
        message: How it failed.
        traceback: Its traceback, or the end of its output.
    """

    def __init__(self, number: int, message: str, traceback: str = ""):
        super().__init__(number, "died", f"actor-learner {number} {message}", traceback)
        self.args = (f"{self.message}\n{traceback.rstrip()}",)

    @property
    def advice(self) -> str:
        """What to check."""
        return (
            "check its last words above and the memory of the machine (the kernel's log names what "
            "it killed); the run is saved, the same command resumes it"
        )


class Learners:
    """Processes that collect and learn at the same time, until they have taken enough steps.

    Args:
        config: The run's config.
        descriptor: Of the shared memory.
        count: Number of processes.
        calls: First number of the random streams of their actions.
    """

    def __init__(self, config: Config, descriptor: int, count: int, calls: int):
        self._processes: list[_Process] = []
        try:
            self._processes = [_Process(i, descriptor) for i in range(count)]
            for process in self._processes:
                process.send({
                    "values": config.flat(), "agent": config.agent, "learners": count,
                    "calls": calls,
                })  # fmt: skip
            for process in self._processes:
                process.receive()
        except BaseException:
            self.close()
            raise

    def run(
        self, check: Callable[[], None], on_episode: OnEpisode, on_update: OnUpdate,
        stop: Callable[[], None],
    ) -> list[dict[str, float]]:  # fmt: skip
        """Lets all of them continue to the shared limit of steps.

        Args:
            check: Called at least once a second; what it raises ends this early.
            on_episode: Takes return and length of each complete episode.
            on_update: Takes number, rollout and metrics of each update that was not finite, and of
                its learner's next finite one; what it raises ends this early as well.
            stop: Lowers the shared limit, so that all pause; called before this ends early.

        Returns:
            The mean metrics of each, {} if it made no update.
        Raises:
            EnvError: A learner failed, or an environment too often; the others have paused.
        """
        for process in self._processes:
            process.send({"go": True})
        found: dict[int, dict[str, float]] = {}
        raised: Exception | None = None
        while len(found) < len(self._processes):
            try:
                self._hear(found, on_episode, on_update)
                if raised is None:
                    check()
            except (EnvError, UserError, StopRequested) as error:
                stop()
                raised = raised or error  # once all have paused: a checkpoint is of one moment
        if raised is not None:
            raise raised
        return [found[number] for number in sorted(found)]

    def _hear(
        self, found: dict[int, dict[str, float]], on_episode: OnEpisode, on_update: OnUpdate
    ) -> None:
        """Takes a message from each process that sends one within a second."""
        waiting = [process for process in self._processes if process.number not in found]
        for process in select.select(waiting, [], [], 1.0)[0]:
            try:
                message, arrays = process.receive()
            except (EnvError, UserError):
                found[process.number] = {}  # it has ended
                raise
            if "done" in message:
                found[process.number] = message["done"]
            elif "update" in message:
                on_update(message["update"], arrays, message["metrics"])
            elif "warning" in message:
                text = f"actor-learner {process.number}: {message['warning']}"
                warnings.warn(text, EnvRestartWarning, stacklevel=3)
            else:
                on_episode(message["return"], message["length"])

    def close(self) -> None:
        """Ends the processes; may be called twice."""
        processes, self._processes = self._processes, []
        for process in processes:
            process.disconnect()
        deadline = time.monotonic() + CLOSE_TIMEOUT
        for process in processes:
            process.close(max(0.0, deadline - time.monotonic()))


class _Process:
    """One actor-learner's process and the messages to and from it."""

    def __init__(self, number: int, descriptor: int):
        self.number = number
        self._process = ChildProcess(
            "baselines.a3c.worker", str(descriptor), str(number), pass_fds=[descriptor],
            variables=inherited_variables(**dict.fromkeys(_ONE_THREAD, "1")),
        )  # fmt: skip

    def fileno(self) -> int:
        return self._process.socket.fileno()

    def send(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(wire.DisconnectedError):  # receive() reports it
            wire.send(self._process.socket, message)

    def receive(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        try:
            message, arrays = wire.receive(self._process.socket)
        except wire.DisconnectedError:
            how = f"died: {self._process.describe_exit()}"
            raise LearnerError(self.number, how, self._process.last_output()) from None
        match message.get("error"):
            case {"user": text}:
                raise UserError(text)
            case {"environment": [index, what, text, trace]}:
                raise EnvError(index, what, text, trace)
            case {"traceback": trace}:
                raise LearnerError(self.number, "failed", trace)
        return message, arrays

    def disconnect(self) -> None:
        self._process.socket.close()

    def close(self, timeout: float) -> None:
        self._process.close(timeout)
