"""Environments in worker processes, stepped together."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from dreamer.envs.multitask import assign, share_requests, shared_info
from dreamer.envs.processes import messages
from dreamer.envs.processes.interpreter import find_python, import_path, worker_variables
from dreamer.envs.spec import EnvSettings, Timestep, spaces_from_json
from dreamer.errors import EnvError, UserError
from dreamer.system.processes import ChildProcess
from dreamer.tasks import find_suite, split_tasks, suite_of

Seeds = Sequence[int | None]
Indices = Sequence[int] | None
Outcome = Timestep | EnvError
Message = tuple[dict[str, Any], dict[str, np.ndarray]]  # header, arrays

#: Seconds. A start takes longer than a step: imports from a cold disk, several workers at once.
START_TIMEOUT = 180.0
#: Seconds that a worker has to close its environment before it is killed.
CLOSE_TIMEOUT = 5.0
#: Seconds before a failed worker is started again; doubled with each of its failures in a row.
BACK_OFF, LONGEST_BACK_OFF = 0.1, 5.0
LOG_LIMIT = 1 << 20  # bytes of a worker's output that are kept at a reset


class EnvRestartWarning(UserWarning):
    """A worker failed and is replaced; the message names the worker and counts its failures."""


class EnvPool:
    """Environments of one task, or of several tasks in turn, each in a process of its own.

    If a worker fails, `reset` and `step` return an EnvError in place of its timestep. The worker's
    next reset replaces it, after a pause.

    Args:
        task: As for `make_env`; relative paths and modules are found as in this process. Several
            tasks, `a,b,c`, are padded to the spaces that they share (`dreamer.envs.multitask`).
        num_envs: Number of workers, a multiple of the number of tasks.
        timeout: Seconds that a worker may take for one reply.
        restarts: Failures of one worker in a row, without a completed episode between them, that
            are tolerated. The next one closes the pool and is raised.
        python: The interpreter of the workers; "": this process's own. Another one needs NumPy (and
            Pillow, for images) and what the environment needs, but not TensorFlow.
        tell_task: Whether to observe which of several tasks it is.
        **settings: The fields of `EnvSettings`.

    Attributes:
        obs_space, act_space, action_repeat, info: As of one environment. With several tasks, info
            has the longest time limit, 0 if a task has none.
        num_envs: Number of workers.
        tasks: Each worker's task.
        failures: Number of failures so far, of all workers.
        goes_on: For each worker, whether its next episode continues from its last one (see `Env`).
        on_wait: Called every second of waiting for a worker, with the seconds so far. An exception
            that it raises closes the pool.

    Raises:
        UserError: A setting is wrong, `make_env` raised it in a worker, OpenGL does not render
            here, or `python` is not usable.
        EnvError: A worker failed; the pool is closed.
    """

    def __init__(
        self, task: str, num_envs: int = 1, timeout: float = 60.0, restarts: int = 0,
        python: str = "", tell_task: bool = False, **settings: Any,
    ):  # fmt: skip
        if num_envs < 1:
            raise UserError(f"envs.num_envs is {num_envs}, expected at least 1")
        if "DREAMER_ENV_WORKER" in os.environ:
            raise UserError(
                "an environment's file starts environments itself when imported: keep the "
                "environment in a file of its own, or what runs under `if __name__ == "
                '"__main__":`'
            )
        self.num_envs, self.timeout, self.failures = num_envs, timeout, 0
        self.on_wait: Callable[[float], None] | None = None
        self.goes_on = [False] * num_envs
        self.tasks = assign(split_tasks(task), num_envs)
        # Failures are counted for each worker: one of several tasks may be broken.
        self._restarts, self._in_a_row = restarts, [0] * num_envs
        self._failed: set[int] = set()
        self._workers: list[WorkerProcess] = []
        checked = EnvSettings(**settings)
        suite_of(task)  # all tasks must be of one suite
        # The requests that make each worker's environment.
        make = {"kind": "make", "settings": asdict(checked)}
        self._makes = [[{**make, "maker": suite.maker, "name": name}]
                       for suite, name in map(find_suite, self.tasks)]  # fmt: skip
        self._python = find_python(python)
        self._folder = tempfile.TemporaryDirectory(prefix="dreamer_envs_") if python else None
        self._variables = worker_variables(find_suite(self.tasks[0])[0], checked, num_envs)
        if self._folder is not None:
            self._variables["PYTHONPATH"] = import_path(self._folder.name)
        try:
            for index in range(num_envs):  # one by one, so that close() finds those that started
                self._workers.append(WorkerProcess(index, self._python, self._variables))
            replies = self._make()
            if "," in task:
                shares = share_requests(self.tasks, replies, tell_task)
                for requests, share in zip(self._makes, shares, strict=True):
                    requests.append(share)
                replies = self._make()
        except BaseException:
            self.close()
            raise
        self.obs_space, self.act_space = spaces_from_json(replies[0])
        self.action_repeat: int = replies[0]["action_repeat"]
        self.info: dict[str, str] = shared_info(replies)

    def _make(self) -> list[dict[str, Any]]:
        """Sends each worker its newest request; returns the descriptions of the environments."""
        for worker, requests in zip(self._workers, self._makes, strict=True):
            worker.send(requests[-1])
        return [worker.receive(max(self.timeout, START_TIMEOUT))[0] for worker in self._workers]

    def reset(self, seeds: Seeds, indices: Indices = None) -> list[Outcome]:
        """Starts an episode in each of `indices` (default: all).

        Returns:
            The first timesteps; an EnvError in place of that of each worker that failed.

        Raises:
            EnvError: A worker failed more often than `restarts` allows; the pool is closed.
        """
        numbers = [None if seed is None else int(seed) for seed in seeds]
        headers = [{"kind": "reset", "seed": number} for number in numbers]
        return self._count(self._exchange([(header, {}) for header in headers], indices))

    def step(self, actions: np.ndarray, indices: Indices = None) -> list[Outcome]:
        """Steps each of `indices` (default: all) with its row of `actions` [n, A] float32.

        Returns and raises as `reset`.
        """
        arrays = [{"action": row} for row in np.asarray(actions, np.float32)]
        return self._count(self._exchange([({"kind": "step"}, row) for row in arrays], indices))

    def _exchange(self, requests: Sequence[Message], indices: Indices) -> dict[int, Outcome]:
        """Returns each chosen worker's timestep or failure; a failed worker is killed at once."""
        if not self._workers:
            raise RuntimeError("the pool is closed")
        chosen = range(self.num_envs) if indices is None else indices
        if len(requests) != len(chosen):
            raise ValueError(f"expected {len(chosen)} rows, got {len(requests)}")
        try:
            unsent = [self._attempt(index, self._ask, *request)
                      for index, request in zip(chosen, requests, strict=True)]  # fmt: skip
            return {index: error or self._attempt(index, self._answer)
                    for index, error in zip(chosen, unsent, strict=True)}  # fmt: skip
        except BaseException:
            # Later replies would be taken for replies to the next request.
            self.close()
            raise

    def _attempt(self, index: int, act: Callable[..., Any], *values: Any) -> Any:
        try:
            return act(index, *values)
        except EnvError as error:
            self._workers[index].kill()
            self._failed.add(index)
            return error

    def _ask(self, index: int, request: dict[str, Any], arrays: Timestep) -> None:
        """Sends a request; a worker that has failed is replaced before, after a pause."""
        if index in self._failed:
            self._workers[index].close(0.0)
            time.sleep(min(BACK_OFF * 2 ** max(self._in_a_row[index] - 1, 0), LONGEST_BACK_OFF))
            self._workers[index] = WorkerProcess(index, self._python, self._variables)
            for make in self._makes[index]:
                self._workers[index].send(make)
                self._workers[index].receive(max(self.timeout, START_TIMEOUT), self.on_wait)
            self._failed.remove(index)
        self._workers[index].send(request, arrays)

    def _answer(self, index: int) -> Timestep:
        header, timestep = self._workers[index].receive(self.timeout, self.on_wait)
        self.goes_on[index] = header["goes_on"]
        return timestep

    def _count(self, outcomes: dict[int, Outcome]) -> list[Outcome]:
        """Counts failures and warns; raises if a worker has too many in a row."""
        errors = []
        for index, outcome in outcomes.items():
            if isinstance(outcome, EnvError):
                errors.append(outcome)
                self._in_a_row[index] += 1
            elif outcome["is_last"]:
                self._in_a_row[index] = 0
        self.failures += len(errors)
        for error in errors:
            count = self._in_a_row[error.index]
            if count > self._restarts:
                self.close()
                if count == 1:
                    raise error
                message = f"{error.message} ({count} failures without an episode completed)"
                raise EnvError(error.index, error.kind, message, error.traceback)
        for error in errors:
            warnings.warn(
                f"environment {error.index} {error.kind}: {error.message.splitlines()[0]}; its "
                f"episode is dropped and it is started again (failure {self.failures}, "
                f"{self._in_a_row[error.index]} in a row)",
                EnvRestartWarning, stacklevel=3,
            )  # fmt: skip
        return list(outcomes.values())

    def close(self) -> None:
        """Ends the workers; may be called twice."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.ask_to_close()
        deadline = time.monotonic() + CLOSE_TIMEOUT
        for worker in workers:
            worker.close(max(0.0, deadline - time.monotonic()))
        if self._folder is not None:
            self._folder.cleanup()

    def __enter__(self) -> EnvPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class WorkerProcess(ChildProcess):
    """A worker as the pool sees it. Its failures are raised as EnvError, with its `index`.

    Processes that its environment starts, such as a game, end with it.
    """

    def __init__(self, index: int, python: str, variables: Mapping[str, str]):
        self._index = index
        try:
            super().__init__("dreamer.envs.processes.worker", python=python, variables=variables)
        except OSError as error:
            raise EnvError(index, "did not start", str(error)) from error

    def send(self, header: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
        """Sends a request."""
        if header["kind"] == "reset":
            self.limit_log(LOG_LIMIT)
        try:
            messages.send(self.socket, header, arrays)
        except messages.DisconnectedError:
            raise self._death() from None

    def receive(
        self, timeout: float, on_wait: Callable[[float], None] | None = None
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Waits for a reply and returns its header and arrays; arguments as in `messages.receive`.

        Raises UserError if the environment does. Kills a worker that does not reply in time.
        """
        try:
            header, arrays = messages.receive(self.socket, timeout, on_wait)
        except messages.DisconnectedError:
            raise self._death() from None
        except TimeoutError:
            self.kill()
            message = f"no reply within {timeout:g} s"
            raise EnvError(self._index, "timed out", message, self.last_output()) from None
        if header["kind"] != "error":
            return header, arrays
        if header["error"] == "user":
            raise UserError(header["message"])
        raise EnvError(self._index, header["error"], header["message"], header["traceback"])

    def ask_to_close(self) -> None:
        """Asks the worker to close its environment and to end; `close` waits for that."""
        try:
            messages.send(self.socket, {"kind": "close"})
        except OSError:
            self.kill()  # it has ended or will soon

    def _death(self) -> EnvError:
        how = self.describe_exit(CLOSE_TIMEOUT)
        return EnvError(self._index, "died", how, self.last_output())
