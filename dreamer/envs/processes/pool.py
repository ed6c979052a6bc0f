"""Environments in worker processes, stepped together."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Unpack

import numpy as np

from dreamer.envs.multitask import assign, share_requests, shared_info
from dreamer.envs.processes.interpreter import (
    WORKER_VARIABLE,
    find_python,
    import_paths,
    worker_variables,
)
from dreamer.envs.processes.process import CLOSE_TIMEOUT, WorkerProcess
from dreamer.envs.spec import EnvKeywords, EnvSettings, Timestep, spaces_from_json
from dreamer.errors import EnvError, UserError
from dreamer.tasks import find_suite, split_tasks, suite_of

Seeds = Sequence[int | None]
Indices = Sequence[int] | None
Outcome = Timestep | EnvError

__all__ = ["EnvError", "EnvPool", "EnvRestartWarning"]

#: Seconds. A start takes longer than a step: imports from a cold disk, several workers at once.
START_TIMEOUT = 180.0
#: Seconds before a failed worker is started again; doubled with each of its failures in a row.
BACK_OFF, LONGEST_BACK_OFF = 0.1, 5.0


class EnvRestartWarning(UserWarning):
    """A worker failed and is replaced; the message names the worker and counts its failures."""


class EnvPool:
    """Environments of one task, or of several tasks in turn, each in a process of its own.

    With `reset` and `step`, a worker's failure closes the pool and is raised. With `try_reset` and
    `try_step`, the result has an EnvError in place of that worker's timestep; the next reset of the
    worker replaces it, after a pause.

    Args:
        task: As for `make_env`; relative paths and modules are found as in this process. Several
            tasks, `a,b,c`, are padded to the spaces that they share (`dreamer.envs.multitask`).
        num_envs: Number of workers, a multiple of the number of tasks.
        timeout: Seconds that a worker may take for one reply.
        restarts: Failures of one worker in a row, without a completed episode between them, that
            `try_reset` and `try_step` tolerate. The next one closes the pool and is raised.
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
        python: str = "", tell_task: bool = False, **settings: Unpack[EnvKeywords],
    ):  # fmt: skip
        _check_may_start(num_envs)
        self.num_envs = num_envs
        self.timeout = timeout
        self.failures = 0
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
        self._makes = [[_make_request(name, checked)] for name in self.tasks]
        self._python = find_python(python)
        self._variables = worker_variables(find_suite(self.tasks[0])[0], checked, num_envs)
        self._folder = tempfile.TemporaryDirectory(prefix="dreamer_envs_") if python else None
        paths = import_paths(self._folder.name if self._folder else None)
        self._variables["PYTHONPATH"] = os.pathsep.join(paths)
        try:
            for index in range(num_envs):  # one by one, so that close() finds those that started
                self._workers.append(self._start(index))
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

    def _start(self, index: int) -> WorkerProcess:
        return WorkerProcess(index, self._python, self._variables)

    def _make(self) -> list[dict[str, Any]]:
        """Sends each worker its newest request; returns the descriptions of the environments."""
        for worker, requests in zip(self._workers, self._makes, strict=True):
            worker.send(requests[-1])
        return [worker.receive(max(self.timeout, START_TIMEOUT))[0] for worker in self._workers]

    def reset(self, seeds: Seeds, indices: Indices = None) -> list[Timestep]:
        """Starts an episode in each of `indices` (default: all); returns the first timesteps."""
        return self._all(self._reset(seeds, indices))

    def step(self, actions: np.ndarray, indices: Indices = None) -> list[Timestep]:
        """Steps each of `indices` (default: all) with its row of `actions` [n, A] float32."""
        return self._all(self._step(actions, indices))

    def try_reset(self, seeds: Seeds, indices: Indices = None) -> list[Outcome]:
        """Like `reset`, with an error for each worker that failed.

        Raises:
            EnvError: A worker failed more often than `restarts` allows; the pool is closed.
        """
        return self._tolerate(self._reset(seeds, indices), indices)

    def try_step(self, actions: np.ndarray, indices: Indices = None) -> list[Outcome]:
        """Like `step`, with an error for each worker that failed. Raises as `try_reset`."""
        return self._tolerate(self._step(actions, indices), indices)

    def _reset(self, seeds: Seeds, indices: Indices) -> list[Outcome]:
        headers = [{"kind": "reset", "seed": seed if seed is None else int(seed)} for seed in seeds]
        return self._exchange("seeds", [(header, {}) for header in headers], indices)

    def _step(self, actions: np.ndarray, indices: Indices) -> list[Outcome]:
        arrays = [{"action": np.asarray(action, np.float32)} for action in actions]
        return self._exchange("actions", [({"kind": "step"}, array) for array in arrays], indices)

    def _exchange(
        self, name: str, requests: Sequence[tuple[dict[str, Any], Timestep]], indices: Indices
    ) -> list[Outcome]:
        """Returns each chosen worker's timestep or failure; a failed worker is killed at once."""
        if not self._workers:
            raise RuntimeError("the pool is closed")
        chosen = list(range(self.num_envs) if indices is None else indices)
        if len(requests) != len(chosen):
            raise ValueError(f"{name}: expected {len(chosen)} rows, got {len(requests)}")
        try:
            unsent = [self._attempt(index, self._ask, *request)
                      for index, request in zip(chosen, requests, strict=True)]  # fmt: skip
            return [error or self._attempt(index, self._answer)
                    for index, error in zip(chosen, unsent, strict=True)]  # fmt: skip
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
        if index in self._failed:
            self._replace(index)
        self._workers[index].send(request, arrays)

    def _answer(self, index: int) -> Timestep:
        header, timestep = self._workers[index].receive(self.timeout, self.on_wait)
        self.goes_on[index] = header["goes_on"]
        return timestep

    def _replace(self, index: int) -> None:
        """Replaces the worker of that index by a new one, after a pause."""
        self._workers[index].close(0.0)
        time.sleep(min(BACK_OFF * 2 ** max(self._in_a_row[index] - 1, 0), LONGEST_BACK_OFF))
        self._workers[index] = self._start(index)
        for request in self._makes[index]:
            self._workers[index].send(request)
            self._workers[index].receive(max(self.timeout, START_TIMEOUT), self.on_wait)
        self._failed.remove(index)

    def _all(self, outcomes: list[Outcome]) -> list[Timestep]:
        """Returns the timesteps; if a worker failed, closes the pool and raises its error."""
        timesteps = [outcome for outcome in outcomes if not isinstance(outcome, EnvError)]
        if len(timesteps) < len(outcomes):
            self.close()
            raise next(outcome for outcome in outcomes if isinstance(outcome, EnvError))
        return timesteps

    def _tolerate(self, outcomes: list[Outcome], indices: Indices) -> list[Outcome]:
        """Counts failures and warns; raises if a worker has too many in a row."""
        errors = [outcome for outcome in outcomes if isinstance(outcome, EnvError)]
        self.failures += len(errors)
        chosen = range(self.num_envs) if indices is None else indices
        for index, outcome in zip(chosen, outcomes, strict=True):
            if isinstance(outcome, EnvError):
                self._in_a_row[index] += 1
            elif outcome["is_last"]:
                self._in_a_row[index] = 0
        for error in errors:
            if self._in_a_row[error.index] > self._restarts:
                self.close()
                count = self._in_a_row[error.index]
                message = f"{error.message} ({count} failures without an episode completed)"
                raise EnvError(error.index, error.kind, message, error.traceback)
        for error in errors:
            warnings.warn(
                f"environment {error.index} {error.kind}: {error.message.splitlines()[0]}; its "
                f"episode is dropped and it is started again (failure {self.failures}, "
                f"{self._in_a_row[error.index]} in a row)",
                EnvRestartWarning, stacklevel=3,
            )  # fmt: skip
        return outcomes

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


def _make_request(task: str, settings: EnvSettings) -> dict[str, Any]:
    suite, name = find_suite(task)
    return {
        "kind": "make", "maker": suite.maker, "name": name, "settings": asdict(settings)
    }  # fmt: skip


def _check_may_start(num_envs: int) -> None:
    if num_envs < 1:
        raise UserError(f"envs.num_envs is {num_envs}, expected at least 1")
    if WORKER_VARIABLE in os.environ:
        raise UserError(
            "an environment's file starts environments itself when imported: keep the "
            "environment in a file of its own, or what runs under `if __name__ == \"__main__\":`"
        )
