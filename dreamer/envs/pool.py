"""Environments in worker processes, stepped together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from dreamer.envs import rendering, suite_of, wire
from dreamer.envs.interpreter import find_python, import_paths
from dreamer.envs.spec import Record, Space
from dreamer.errors import UserError

#: Starting takes longer than a step: imports from a cold disk, several workers at once.
START_TIMEOUT = 180.0
#: Seconds a worker has to close its environment before it is killed.
CLOSE_TIMEOUT = 5.0
LOG_TAIL = 4000  # bytes of a worker's output that an error shows
LOG_LIMIT = 1 << 20  # bytes of a worker's output that are kept at most between two resets
#: One thread a worker for arithmetic, where the user has not said otherwise: workers are the
#: parallelism.
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
#: Set in workers, so that a file they import cannot start workers in turn.
WORKER_VARIABLE = "DREAMER_ENV_WORKER"


class EnvError(RuntimeError):
    """An environment's process failed.

    Attributes:
        index: of the worker.
        what: "raised", "contract" (wrong shape, dtype, keys, or not finite), "died", "timed out".
        traceback: the worker's own, or the end of what it printed.
    """

    def __init__(self, index: int, what: str, message: str, traceback: str = ""):
        self.index, self.what, self.message, self.traceback = index, what, message, traceback
        text = f"environment {index} {what}: {message}"
        super().__init__(f"{text}\n{traceback.rstrip()}" if traceback.strip() else text)


class EnvPool:
    """`amount` environments of one task, each in a process of its own.

    Args:
        task: as `make_env` takes it; relative paths and modules are found as in this process.
        amount: of workers.
        timeout: seconds a worker may take for one reply.
        python: the interpreter that runs the workers, "" for this process's own. Another one needs
            NumPy (and Pillow, for images) besides what the environment needs, and not TensorFlow.
        **settings: as `make_env` takes them.

    Attributes:
        obs_space, act_space, action_repeat, info: as of one environment.

    Raises:
        UserError: what `make_env` raised as one in a worker, no OpenGL renders here, or `python`
            is no program.
        EnvError: a worker failed; the pool is closed then.
    """

    def __init__(
        self,
        task: str,
        amount: int = 1,
        timeout: float = 60.0,
        python: str = "",
        **settings: Any,
    ):
        if amount < 1:
            raise UserError(f"envs.amount is {amount}, expected at least 1")
        if WORKER_VARIABLE in os.environ:
            raise UserError(
                "an environment's file starts environments itself when imported: keep the "
                "environment in a file of its own, or what runs under "
                "`if __name__ == \"__main__\":`"
            )
        self.amount = amount
        self.timeout = timeout
        self._workers: list[_Worker] = []
        program = find_python(python)
        variables = _variables(suite_of(task), settings, amount)
        self._folder = tempfile.TemporaryDirectory(prefix="dreamer_envs_") if python else None
        paths = import_paths(self._folder.name if self._folder else None)
        variables["PYTHONPATH"] = os.pathsep.join(paths)
        try:
            self._workers = [_Worker(index, program, variables) for index in range(amount)]
            for worker in self._workers:
                worker.send({"kind": "make", "task": task, "settings": settings})
            replies = [worker.receive(max(timeout, START_TIMEOUT))[0] for worker in self._workers]
        except BaseException:
            self.close()
            raise
        self.obs_space = {
            key: Space.from_json(space) for key, space in replies[0]["obs_space"].items()
        }
        self.act_space = Space.from_json(replies[0]["act_space"])
        self.action_repeat: int = replies[0]["action_repeat"]
        self.info: dict[str, str] = replies[0]["info"]

    def reset(
        self, seeds: Sequence[int | None], indices: Sequence[int] | None = None
    ) -> list[Record]:
        """Starts an episode in each of `indices` (default: all); returns the first records."""
        workers = self._select(indices, len(seeds), "seeds")
        requests = [{"kind": "reset", "seed": None if seed is None else int(seed)}
                    for seed in seeds]  # fmt: skip
        return self._exchange(workers, requests, [{} for _ in workers])

    def step(self, actions: np.ndarray, indices: Sequence[int] | None = None) -> list[Record]:
        """Steps each of `indices` (default: all) with its row of `actions` [n, A] float32."""
        workers = self._select(indices, len(actions), "actions")
        arrays = [{"action": np.asarray(action, np.float32)} for action in actions]
        return self._exchange(workers, [{"kind": "step"}] * len(workers), arrays)

    def _select(self, indices: Sequence[int] | None, given: int, name: str) -> list[_Worker]:
        if not self._workers:
            raise RuntimeError("the pool is closed")
        workers = self._workers if indices is None else [self._workers[i] for i in indices]
        if given != len(workers):
            raise ValueError(f"{name}: expected {len(workers)} rows, got {given}")
        return workers

    def _exchange(
        self,
        workers: list[_Worker],
        requests: list[dict[str, Any]],
        arrays: list[dict[str, np.ndarray]],
    ) -> list[Record]:
        try:
            for worker, request, values in zip(workers, requests, arrays, strict=True):
                worker.send(request, values)
            return [worker.receive(self.timeout)[1] for worker in workers]
        except BaseException:
            # Replies that are still on their way would be taken for those of the next request.
            self.close()
            raise

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


def _variables(suite: str, settings: dict[str, Any], amount: int) -> dict[str, str]:
    """Returns the environment variables that workers start with."""
    drawing = {"LP_NUM_THREADS": str(_drawing_threads(amount))}
    variables = {**THREADS, **drawing, **os.environ, WORKER_VARIABLE: "1"}
    variables.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame, which many environments draw with
    if suite == "atari" or not settings.get("image", True):
        variables.setdefault("MUJOCO_GL", "off")
        return variables
    try:
        variables.update(rendering.backend_variables(settings.get("egl_device", -1)))
    except UserError:
        if suite == "dmc":
            raise  # other environments may well draw without OpenGL
    return variables


def _drawing_threads(amount: int) -> int:
    """Returns a worker's threads for Mesa's software OpenGL, 0 meaning none besides the caller's.

    Workers share the processors. With 2 idle ones a single worker of walker_walk makes 131 frames
    a second with 2 threads, and 110 with none.
    """
    share = len(os.sched_getaffinity(0)) // amount
    return min(share, 4) if share > 1 else 0


class _Worker:
    """One process, the socket to it and what it prints."""

    def __init__(self, index: int, program: str, variables: dict[str, str]):
        self._index = index
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115  # closed in close()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [program, "-P", "-m", "dreamer.envs.worker", str(theirs.fileno())],
                env=variables, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in the terminal is not for the workers
            )  # fmt: skip

    def send(self, header: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
        if header["kind"] == "reset" and os.fstat(self._log.fileno()).st_size > LOG_LIMIT:
            self._log.truncate(0)
        try:
            wire.send(self._socket, header, arrays)
        except wire.DisconnectedError:
            raise self._death() from None

    def receive(self, timeout: float) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        try:
            header, arrays = wire.receive(self._socket, timeout)
        except wire.DisconnectedError:
            raise self._death() from None
        except TimeoutError:
            self._process.kill()
            message = f"no reply within {timeout:g} s"
            raise EnvError(self._index, "timed out", message, self._tail()) from None
        if header["kind"] != "error":
            return header, arrays
        if header["what"] == "user":
            raise UserError(header["message"])
        raise EnvError(self._index, header["what"], header["message"], header["traceback"])

    def _death(self) -> EnvError:
        try:
            code = self._process.wait(CLOSE_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        how = f"exit status {code}"
        if code < 0:
            how = f"killed by {signal.Signals(-code).name}"
        return EnvError(self._index, "died", how, self._tail())

    def _tail(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - LOG_TAIL))
        return self._log.read().decode(errors="replace")

    def ask_to_close(self) -> None:
        try:
            wire.send(self._socket, {"kind": "close"})
        except OSError:
            self._process.kill()  # it is gone or going; waited for in close()

    def close(self, timeout: float) -> None:
        self._socket.close()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
