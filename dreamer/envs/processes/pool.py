"""Environments in worker processes, stepped together."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import dreamer
from dreamer.envs import rendering
from dreamer.envs.multitask import assign, share_requests, shared_info
from dreamer.envs.spec import EnvSettings, Timestep, spaces_from_json
from dreamer.errors import EnvError, UserError
from dreamer.system.children import CLOSE_TIMEOUT, ChildProcess
from dreamer.system.messages import Message
from dreamer.system.processes import try_python
from dreamer.tasks import Suite, find_suite, split_tasks, suite_of

Seeds = Sequence[int | None]
Indices = Sequence[int] | None
Outcome = Timestep | EnvError

#: Seconds. A start takes longer than a step: imports from a cold disk, several workers at once.
START_TIMEOUT = 180.0
#: Seconds before a failed worker is started again; doubled with each of its failures in a row.
BACK_OFF, LONGEST_BACK_OFF = 0.1, 5.0
#: Failures in a row at the same step that end a run in which no episode was completed yet.
SAME_FAILURES = 3
LOG_LIMIT = 1 << 20  # bytes of a worker's output that are kept at a reset
#: Checks what every worker needs. Pillow is needed only to resize images.
_PROBE = "import numpy, sys; assert sys.version_info >= (3, 11), sys.version"
_EXPECTED = "expected a virtual environment's bin/python, of Python 3.11 or newer, with NumPy"
#: Variables for workers, unless the user has set them. Workers run in parallel, so each has one
#: thread for arithmetic. Many environments draw with pygame, which uses SDL.
_DEFAULTS = {
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    "SDL_VIDEODRIVER": "dummy",
}  # fmt: skip


class EnvRestartWarning(UserWarning):
    """A worker failed and is replaced; the message names the worker and counts its failures."""


class EnvPool(contextlib.AbstractContextManager["EnvPool"]):
    """Environments of one task, or of several tasks in turn, each in a process of its own.

    If a worker fails, `reset` and `step` return an EnvError in place of its timestep. The worker's
    next reset replaces it, after a pause.

    Args:
        task: As for `make_env`; relative paths and modules are found as in this process. Several
            tasks, `a,b,c`, are padded to the spaces that they share (`dreamer.envs.multitask`).
        num_envs: Number of workers, a multiple of the number of tasks.
        timeout: Seconds that a worker may take for one reply.
        restarts: Failures of one worker in a row, without a completed episode between them, that
            are tolerated. The next one closes the pool and is raised. If no worker has completed an
            episode yet, so is the third failure in a row at the same step: the mistake is then in
            the environment's code, and trying again does not help.
        python: The interpreter of the workers; "": this process's own. Another one needs NumPy (and
            Pillow, for images) and what the environment needs, but not TensorFlow.
        renew_every: Episodes after which a worker's process is replaced by a new one; 0: never.
        tell_task: Whether the agent observes which of several tasks it plays.
        gpus: GPUs that this process computes on, 0: all. Workers render on them in turn, unless
            `egl_device` says where.
        **settings: The fields of `EnvSettings`; `index` is the first worker's.

    Attributes:
        obs_space, act_space, action_repeat, info: Those of one environment. With several tasks,
            info has the longest time limit, 0 if a task has none.
        time_limit: Frames of the longest episodes, as far as the settings or info tell; else 0.
        num_envs: Number of workers.
        tasks: Each worker's task.
        failures: Number of failures so far, of all workers.
        goes_on: For each worker, whether its next episode continues from its last one (see `Env`).
        on_note: Called with each line that a reset adds to `info["notes"]`.
        on_wait: Called every second of waiting for a worker, with the seconds so far. An exception
            that it raises closes the pool.

    Raises:
        UserError: A setting is wrong, `make_env` raised it in a worker, OpenGL does not render
            here, or `python` is not usable.
        EnvError: A worker failed; the pool is closed.
    """

    def __init__(
        self, task: str, num_envs: int = 1, timeout: float = 60.0, restarts: int = 0,
        python: str = "", tell_task: bool = False, renew_every: int = 0,
        gpus: int = 1, **settings: Any,
    ):  # fmt: skip
        if num_envs < 1:
            raise UserError(f"envs.num_envs is {num_envs}, expected at least 1")
        if "DREAMER_ENV_WORKER" in os.environ:
            raise UserError(
                "an environment's file starts environments itself when imported: put the "
                "environment in a file of its own, or the code that starts environments under "
                '`if __name__ == "__main__":`'
            )
        self.num_envs, self.timeout, self.failures = num_envs, timeout, 0
        self.on_wait: Callable[[float], None] | None = None
        self.on_note: Callable[[str], object] = lambda note: None
        self.goes_on = [False] * num_envs
        self.tasks = assign(split_tasks(task), num_envs)
        # Failures are counted for each worker: one of several tasks may be broken.
        self._restarts, self._in_a_row = restarts, [0] * num_envs
        # For each worker, the actions of its episode so far, and those at its failures in a row.
        self._steps = [0] * num_envs
        self._failed_at: list[list[int]] = [[] for _ in range(num_envs)]
        self._completed = False  # whether any episode was
        self._renew_every, self._begun = renew_every, [0] * num_envs  # episodes of each process
        self._failed: set[int] = set()
        self._workers: list[WorkerProcess] = []
        checked = EnvSettings(**settings)
        suite_of(task)  # all tasks must be of one suite
        find_suite(self.tasks[0])[0].check(task, checked)
        # The requests that make each worker's environment.
        self._makes = [
            [{"kind": "make", "settings": {**asdict(checked), "index": index},
              "maker": suite.maker, "name": name}]
            for index, (suite, name) in enumerate(map(find_suite, self.tasks), checked.index)
        ]  # fmt: skip
        self._python = _find_python(python)
        self._folder = tempfile.TemporaryDirectory(prefix="dreamer_envs_") if python else None
        self._variables = _worker_variables(find_suite(self.tasks[0])[0], checked, num_envs)
        self._devices = _egl_devices(gpus) if self._variables.get("MUJOCO_GL") == "egl" else []
        if self._folder is not None:
            self._variables["PYTHONPATH"] = _import_path(self._folder.name)
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
        self.info: dict[str, str] = shared_info([reply["info"] for reply in replies])
        self.time_limit = checked.time_limit or int(self.info.get("time_limit", 0))

    def _start(self, index: int) -> WorkerProcess:
        variables = dict(self._variables)
        if self._devices:
            device = str(self._devices[index % len(self._devices)])
            variables.setdefault("MUJOCO_EGL_DEVICE_ID", device)
        return WorkerProcess(index, self._python, variables)

    def _make(self) -> list[dict[str, Any]]:
        """Sends each worker its newest request; returns the descriptions of the environments."""
        for worker, requests in zip(self._workers, self._makes, strict=True):
            worker.send(requests[-1])
        return [worker.receive(max(self.timeout, START_TIMEOUT))[0] for worker in self._workers]

    def reset(self, seeds: Seeds, indices: Indices = None) -> list[Outcome]:
        """Starts an episode in each of `indices` (default: all) and returns the first timesteps.

        If a worker failed, its EnvError stands in place of its timestep. If a worker failed more
        often than `restarts` allows, the pool is closed and its EnvError is raised.
        """
        numbers = [None if seed is None else int(seed) for seed in seeds]
        return self._exchange([({"kind": "reset", "seed": n}, {}) for n in numbers], indices)

    def step(self, actions: np.ndarray, indices: Indices = None) -> list[Outcome]:
        """Steps each of `indices` (default: all) with its row of `actions` [n, A] float32.

        Returns and raises as `reset`.
        """
        rows = np.asarray(actions, np.float32)
        return self._exchange([({"kind": "step"}, {"action": row}) for row in rows], indices)

    def _exchange(self, requests: Sequence[Message], indices: Indices) -> list[Outcome]:
        """Returns each chosen worker's timestep or failure; a failed worker is killed at once."""
        if not self._workers:
            raise RuntimeError("the pool is closed")
        chosen = range(self.num_envs) if indices is None else indices
        if len(requests) != len(chosen):
            raise ValueError(f"expected {len(chosen)} rows, got {len(requests)}")
        try:
            unsent = [self._attempt(index, self._ask, *request)
                      for index, request in zip(chosen, requests, strict=True)]  # fmt: skip
            outcomes = {index: error or self._attempt(index, self._answer)
                        for index, error in zip(chosen, unsent, strict=True)}  # fmt: skip
        except BaseException:
            # Later replies would be taken for replies to the next request.
            self.close()
            raise
        self._count(outcomes)
        return list(outcomes.values())

    def _attempt(self, index: int, act: Callable[..., Any], *values: Any) -> Any:
        try:
            return act(index, *values)
        except EnvError as error:
            self._workers[index].kill()
            self._failed.add(index)
            return error

    def _ask(self, index: int, request: dict[str, Any], arrays: Timestep) -> None:
        """Sends a request to a worker; replaces the worker first, after a pause, if it failed."""
        is_reset = request["kind"] == "reset"
        is_old = 0 < self._renew_every <= self._begun[index] and not self.goes_on[index]
        if index in self._failed:
            self._workers[index].close(0.0)
            time.sleep(min(BACK_OFF * 2 ** max(self._in_a_row[index] - 1, 0), LONGEST_BACK_OFF))
            self._replace(index)
            self._failed.remove(index)
        elif is_reset and is_old:
            self._workers[index].send({"kind": "close"})
            self._workers[index].close()
            self._replace(index)
        if is_reset:
            self._workers[index].limit_log(LOG_LIMIT)
            self._begun[index] += 1
        self._steps[index] = 0 if is_reset else self._steps[index] + 1
        self._workers[index].send(request, arrays)

    def _replace(self, index: int) -> None:
        """Starts a new process in place of a closed one."""
        self._workers[index] = self._start(index)
        self._begun[index] = 0
        for make in self._makes[index]:
            self._workers[index].send(make)
            self._workers[index].receive(max(self.timeout, START_TIMEOUT), self.on_wait)

    def _answer(self, index: int) -> Timestep:
        header, timestep = self._workers[index].receive(self.timeout, self.on_wait)
        self.goes_on[index] = header["goes_on"]
        self._take_notes(header["notes"])
        return timestep

    def _take_notes(self, notes: str) -> None:
        """Passes on what a reset has added to `info["notes"]`."""
        known = self.info.get("notes", "").splitlines()
        for note in notes.splitlines():
            if note not in known:
                known.append(note)
                self.info["notes"] = "\n".join(known)
                self.on_note(note)

    def _count(self, outcomes: dict[int, Outcome]) -> None:
        """Counts failures and warns; raises if a worker has too many in a row."""
        errors = []
        for index, outcome in outcomes.items():
            if isinstance(outcome, EnvError):
                errors.append(outcome)
                self._in_a_row[index] += 1
                # The first reset and the first step are one place: the environment's form.
                place = max(self._steps[index], 1) if outcome.kind != "did not start" else -1
                self._failed_at[index].append(place)
            elif outcome["is_last"]:
                self._in_a_row[index], self._completed = 0, True
                self._failed_at[index].clear()
        self.failures += len(errors)
        for error in errors:
            count = self._in_a_row[error.index]
            if count > self._restarts or self._always_fails(error.index):
                self.close()
                if count == 1:
                    raise error
                message = f"{error.last_line} ({count} failures without an episode completed)"
                raise EnvError(error.index, error.kind, message, error.traceback)
        for error in errors:
            warnings.warn(
                f"environment {error.index} {error.kind}: {error.last_line}; its "
                f"episode is dropped and it is started again (failure {self.failures}, "
                f"{self._in_a_row[error.index]} in a row)",
                EnvRestartWarning, stacklevel=4,
            )  # fmt: skip

    def _always_fails(self, index: int) -> bool:
        """Whether a worker fails at the same step every time, and no episode was ever completed."""
        places = self._failed_at[index][-SAME_FAILURES:]
        same = len(places) == SAME_FAILURES and len(set(places)) == 1 and places[0] >= 0
        return same and not self._completed

    def close(self) -> None:
        """Ends the workers; may be called twice."""
        workers, self._workers = self._workers, []
        for worker in workers:
            with contextlib.suppress(OSError):  # it has failed and is closed already
                worker.send({"kind": "close"})
        deadline = time.monotonic() + CLOSE_TIMEOUT
        for worker in workers:
            worker.close(max(0.0, deadline - time.monotonic()))
        if self._folder is not None:
            self._folder.cleanup()

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
            raise self.failure("did not start", str(error), "") from error

    def failure(self, kind: str, message: str, details: str) -> EnvError:
        return EnvError(self._index, kind, message, details)


def _find_python(python: str) -> str:
    """Returns the path of an interpreter ("": this process's); UserError if it runs no worker."""
    if not python:
        return sys.executable
    found = shutil.which(Path(python).expanduser())
    if found is None:
        raise UserError(f"envs.python is {python}, which is no program; {_EXPECTED}")
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if problem := try_python(_PROBE, variables, found):
        problem = f"which cannot run environments ({problem})"
        raise UserError(f"envs.python is {python}, {problem}; {_EXPECTED}")
    return os.path.abspath(found)


def _import_path(folder: str) -> str:
    """Returns the PYTHONPATH of workers that another Python runs.

    Its packages must not mix with ours. So it gets the user's folders, and the empty `folder` with
    a link to this package, beside which there may be packages for another NumPy.
    """
    Path(folder, "dreamer").symlink_to(Path(dreamer.__file__).resolve().parent)
    paths = [path or os.getcwd() for path in sys.path]
    prefixes = [Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)]

    def is_installed(path: Path) -> bool:
        packages = {"site-packages", "dist-packages"} & set(path.parts)
        return bool(packages) or any(path.is_relative_to(prefix) for prefix in prefixes)

    users = [path for path in paths if not is_installed(Path(path).resolve())]
    return os.pathsep.join([folder, *users])


def _egl_devices(gpus: int) -> list[int]:
    """Returns the EGL devices that workers render on in turn; [] leaves it to the driver."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if "MUJOCO_EGL_DEVICE_ID" in os.environ or (visible is None and gpus == 1):
        return []
    return rendering.devices_of_gpus(gpus, visible, rendering.cuda_ordinals())


def _worker_variables(suite: Suite, settings: EnvSettings, num_envs: int) -> dict[str, str]:
    """Returns the environment variables that workers have besides this process's own.

    UserError if the suite needs MuJoCo's OpenGL, which does not render here.
    """
    # Workers share the processors. With 2 idle processors, a single worker of walker_walk renders
    # 131 frames per second with 2 threads of its software OpenGL (Mesa), and 110 with none.
    share = len(os.sched_getaffinity(0)) // num_envs
    defaults = {**_DEFAULTS, "LP_NUM_THREADS": str(min(share, 4) if share > 1 else 0)}
    variables = {key: value for key, value in defaults.items() if key not in os.environ}
    variables["DREAMER_ENV_WORKER"] = "1"  # so that a file that workers import starts no pool
    if suite.opengl == "unused" or not settings.image:
        variables["MUJOCO_GL"] = os.environ.get("MUJOCO_GL", "off")
        return variables
    try:
        variables.update(rendering.backend_variables(settings.egl_device))
    except UserError:
        if suite.opengl == "required":
            raise
    return variables
