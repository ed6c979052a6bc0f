"""Environments in worker processes, stepped together."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from dreamer.envs.multitask import assign, share_requests, shared_info, spaces_of
from dreamer.envs.processes.interpreter import (
    WORKER_VARIABLE,
    find_python,
    import_paths,
    worker_variables,
)
from dreamer.envs.processes.process import CLOSE_TIMEOUT, WorkerProcess
from dreamer.envs.spec import Timestep
from dreamer.errors import EnvError, UserError
from dreamer.tasks import split_tasks, suite_of

__all__ = ["EnvError", "EnvPool", "EnvRestartWarning"]

#: Starting takes longer than a step: imports from a cold disk, several workers at once.
START_TIMEOUT = 180.0
#: Seconds before a failed worker is started anew: doubled with every failure of it in a row.
BACK_OFF, LONGEST_BACK_OFF = 0.1, 5.0


class EnvRestartWarning(UserWarning):
    """A worker failed and is replaced; the message says which, how and how often by now."""


class EnvPool:
    """`num_envs` environments of one task, or in turn of several, each in a process of its own.

    `reset` and `step` take an environment's failure for the end: they close the pool and raise.
    `try_reset` and `try_step` hand it out in the place of that worker's timestep; the worker is
    replaced, after a pause, when it is reset next.

    Args:
        task: as `make_env` takes it; relative paths and modules are found as in this process.
            Several, `a,b,c`, are fitted to the spaces they share (`dreamer.envs.multitask`).
        num_envs: of workers, a multiple of the number of tasks.
        timeout: seconds a worker may take for one reply.
        restarts: failures of one worker, without an episode completed by it between them, that
            `try_reset` and `try_step` bear; the next one closes the pool and is raised.
        python: the interpreter that runs the workers, "" for this process's own. Another one needs
            NumPy (and Pillow, for images) besides what the environment needs, and not TensorFlow.
        tell_task: observe which of several tasks it is.
        **settings: as `make_env` takes them.

    Attributes:
        obs_space, act_space, action_repeat, info: as of one environment; of several tasks' time
            limits info has the longest, 0 if one has none.
        tasks: of each worker.
        failures: of workers so far.
        goes_on: of each worker, whether its next episode goes on from its last one (`Env`).
        on_wait: called every second of waiting for a worker, with the seconds so far; what it
            raises closes the pool.

    Raises:
        UserError: what `make_env` raised as one in a worker, no OpenGL renders here, or `python`
            is no program.
        EnvError: a worker failed; the pool is closed then.
    """

    def __init__(
        self, task: str, num_envs: int = 1, timeout: float = 60.0, restarts: int = 0,
        python: str = "", tell_task: bool = False, **settings: Any,
    ):  # fmt: skip
        _check_may_start(num_envs)
        self.num_envs = num_envs
        self.timeout = timeout
        self.failures = 0
        self.on_wait: Callable[[float], None] | None = None
        self.goes_on = [False] * num_envs
        # Each worker's failures since it last completed an episode: of several tasks one may be
        # broken while the others go on.
        self._restarts, self._in_a_row = restarts, [0] * num_envs
        self._failed: set[int] = set()
        self.tasks = assign(split_tasks(task), num_envs)
        # What makes each worker's environment, one request after the other.
        self._makes = [[{"kind": "make", "task": name, "settings": settings}]
                       for name in self.tasks]  # fmt: skip
        self._workers: list[WorkerProcess] = []
        program = find_python(python)
        variables = worker_variables(suite_of(task), settings, num_envs)
        self._folder = tempfile.TemporaryDirectory(prefix="dreamer_envs_") if python else None
        paths = import_paths(self._folder.name if self._folder else None)
        variables["PYTHONPATH"] = os.pathsep.join(paths)
        self._start = lambda index: WorkerProcess(index, program, variables)
        try:
            for index in range(num_envs):  # one by one: close() ends those before a failure
                self._workers.append(self._start(index))
            replies = self._make(0)
            if "," in task:
                for requests, share in zip(
                    self._makes, share_requests(self.tasks, replies, tell_task), strict=True
                ):
                    requests.append(share)
                replies = self._make(1)
        except BaseException:
            self.close()
            raise
        self.obs_space, self.act_space = spaces_of(replies[0])
        self.action_repeat: int = replies[0]["action_repeat"]
        self.info: dict[str, str] = shared_info(replies)

    def _make(self, part: int) -> list[dict[str, Any]]:
        """Sends that part of what makes the environments; returns what they then are."""
        for worker, requests in zip(self._workers, self._makes, strict=True):
            worker.send(requests[part])
        return [worker.receive(max(self.timeout, START_TIMEOUT))[0] for worker in self._workers]

    def reset(
        self, seeds: Sequence[int | None], indices: Sequence[int] | None = None
    ) -> list[Timestep]:
        """Starts an episode in each of `indices` (default: all); returns the first timesteps."""
        return self._all(self._reset(seeds, indices))

    def step(self, actions: np.ndarray, indices: Sequence[int] | None = None) -> list[Timestep]:
        """Steps each of `indices` (default: all) with its row of `actions` [n, A] float32."""
        return self._all(self._step(actions, indices))

    def try_reset(
        self, seeds: Sequence[int | None], indices: Sequence[int] | None = None
    ) -> list[Timestep | EnvError]:
        """Like `reset`, with an error for each worker that failed.

        Raises:
            EnvError: a worker failed once more than `restarts` allows; the pool is closed.
        """
        return self._bear(self._reset(seeds, indices), indices)

    def try_step(
        self, actions: np.ndarray, indices: Sequence[int] | None = None
    ) -> list[Timestep | EnvError]:
        """Like `step`, with an error for each worker that failed. Raises as `try_reset`."""
        return self._bear(self._step(actions, indices), indices)

    def _reset(
        self, seeds: Sequence[int | None], indices: Sequence[int] | None
    ) -> list[Timestep | EnvError]:
        chosen = self._select(indices, len(seeds), "seeds")
        requests = [{"kind": "reset", "seed": None if seed is None else int(seed)}
                    for seed in seeds]  # fmt: skip
        return self._exchange(chosen, requests, [{} for _ in chosen])

    def _step(
        self, actions: np.ndarray, indices: Sequence[int] | None
    ) -> list[Timestep | EnvError]:
        chosen = self._select(indices, len(actions), "actions")
        arrays = [{"action": np.asarray(action, np.float32)} for action in actions]
        return self._exchange(chosen, [{"kind": "step"}] * len(chosen), arrays)

    def _select(self, indices: Sequence[int] | None, given: int, name: str) -> list[int]:
        if not self._workers:
            raise RuntimeError("the pool is closed")
        chosen = list(range(self.num_envs) if indices is None else indices)
        if given != len(chosen):
            raise ValueError(f"{name}: expected {len(chosen)} rows, got {given}")
        return chosen

    def _exchange(
        self,
        chosen: list[int],
        requests: list[dict[str, Any]],
        arrays: list[dict[str, np.ndarray]],
    ) -> list[Timestep | EnvError]:
        """What each chosen worker answers, or how it failed; a failed one is ended at once."""
        try:
            unsent = [
                self._attempt(index, self._ask, request, values)
                for index, request, values in zip(chosen, requests, arrays, strict=True)
            ]
            return [
                error or self._attempt(index, self._answer)
                for index, error in zip(chosen, unsent, strict=True)
            ]
        except BaseException:
            # Replies that are still on their way would be taken for those of the next request.
            self.close()
            raise

    def _attempt(self, index: int, act: Callable[..., Any], *values: Any) -> Any:
        try:
            return act(index, *values)
        except EnvError as error:
            self._workers[index].kill()
            self._failed.add(index)
            return error

    def _ask(self, index: int, request: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        if index in self._failed:
            self._replace(index)
        self._workers[index].send(request, arrays)

    def _answer(self, index: int) -> Timestep:
        header, timestep = self._workers[index].receive(self.timeout, self.on_wait)
        self.goes_on[index] = header["goes_on"]
        return timestep

    def _replace(self, index: int) -> None:
        """Starts the worker of that index anew."""
        self._workers[index].close(0.0)
        time.sleep(min(BACK_OFF * 2 ** max(self._in_a_row[index] - 1, 0), LONGEST_BACK_OFF))
        self._workers[index] = self._start(index)
        for request in self._makes[index]:
            self._workers[index].send(request)
            self._workers[index].receive(max(self.timeout, START_TIMEOUT), self.on_wait)
        self._failed.remove(index)

    def _all(self, outcomes: list[Timestep | EnvError]) -> list[Timestep]:
        """The timesteps, if there is no error among them."""
        timesteps = [outcome for outcome in outcomes if not isinstance(outcome, EnvError)]
        if len(timesteps) < len(outcomes):
            self.close()
            raise next(outcome for outcome in outcomes if isinstance(outcome, EnvError))
        return timesteps

    def _bear(
        self, outcomes: list[Timestep | EnvError], indices: Sequence[int] | None
    ) -> list[Timestep | EnvError]:
        """Counts failures; raises where a worker has too many in a row."""
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
                self._give_up(error)
        for error in errors:
            warnings.warn(
                f"environment {error.index} {error.what}: {error.message.splitlines()[0]}; its "
                f"episode is dropped and it is started again (failure {self.failures}, "
                f"{self._in_a_row[error.index]} in a row)",
                EnvRestartWarning, stacklevel=3,
            )  # fmt: skip
        return outcomes

    def _give_up(self, error: EnvError) -> NoReturn:
        self.close()
        count = self._in_a_row[error.index]
        message = f"{error.message} ({count} failures without an episode completed)"
        raise EnvError(error.index, error.what, message, error.traceback)

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


def _check_may_start(num_envs: int) -> None:
    if num_envs < 1:
        raise UserError(f"envs.num_envs is {num_envs}, expected at least 1")
    if WORKER_VARIABLE in os.environ:
        raise UserError(
            "an environment's file starts environments itself when imported: keep the "
            "environment in a file of its own, or what runs under `if __name__ == \"__main__\":`"
        )
