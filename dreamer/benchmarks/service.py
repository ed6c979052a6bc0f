"""Processes to measure in, and how measurements are taken.

A service is a class named `module:Class`. Its process builds one object, `Class(**settings)`, and
calls its methods by request, one at a time. So several services stay alive, each alone with its
libraries, threads and memory, and are measured in turn. Arguments and results are JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Hashable, Mapping
from statistics import median
from typing import Any, TypeVar

import numpy as np

from dreamer.envs.processes import messages
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.system.processes import ChildProcess, end_with

CLOSE_TIMEOUT = 5.0  # seconds that a process has to end by itself

Measure = Callable[[int], float]
"""Does something so many times and returns the seconds that it took."""
Name = TypeVar("Name", bound=Hashable)


class ServiceError(RuntimeError):
    """A service failed or its process died. The message holds the traceback or the output."""


class Service:
    """One service and its process.

    Args:
        name: `module:Class`.
        variables: Environment variables to set.
        **settings: Arguments of the class; JSON types.

    Raises:
        UserError: The class raised it.
        ServiceError: Anything else went wrong in the process.
    """

    def __init__(self, name: str, variables: Mapping[str, str] | None = None, **settings: Any):
        self._name = name
        self._process = ChildProcess(__name__, name, variables=variables or {})
        try:
            self.ask("", **settings)
        except BaseException:
            self.close()
            raise

    def ask(self, method: str, **arguments: Any) -> Any:
        """Calls a method of the service and returns its result."""
        try:
            request = {"method": method, "arguments": arguments}
            messages.send(self._process.socket, request)
            reply, _ = messages.receive(self._process.socket)
        except messages.DisconnectedError:
            how, output = self._process.describe_exit(), self._process.last_output()
            raise ServiceError(f"{self._name} died ({how})\n{output}") from None
        if "error" in reply:
            raise (UserError if reply["user"] else ServiceError)(reply["error"])
        return reply["result"]

    def measure(self, method: str, **arguments: Any) -> Measure:
        """Returns a function that calls `method(count=..., **arguments)`."""
        return lambda count: self.ask(method, count=count, **arguments)

    def close(self) -> None:
        """Ends the process; may be called twice."""
        self._process.close(CLOSE_TIMEOUT)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def repeated(work: Callable[[], object]) -> Measure:
    """Returns a function that does the work so many times and returns the seconds."""

    def measure(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            work()
        return time.perf_counter() - start

    return measure


def in_turn(measures: Mapping[Name, Measure], rounds: int, shortest: float) -> dict[Name, float]:
    """Measures in the order A B A B ..., so that disturbances affect all measurements alike.

    Args:
        measures: By name. Each is run once as a warm-up, and once to estimate its duration.
        rounds: Number of measurements of each.
        shortest: Minimum seconds of a measurement; faster work is repeated.

    Returns:
        The median seconds of doing each once.
    """
    counts = {}
    for name, measure in measures.items():
        measure(1)
        counts[name] = max(1, math.ceil(shortest / max(measure(1), 1e-6)))
    found: dict[Name, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            found[name].append(measure(counts[name]) / counts[name])
    return {name: median(seconds) for name, seconds in found.items()}


def random_timesteps(
    obs_space: Mapping[str, Space], act_space: Space, shape: tuple[int, ...], seed: int
) -> dict[str, np.ndarray]:
    """Returns timesteps [*shape, ...] of random numbers, as a replay stores and samples them.

    The last axis of `shape` is time: it holds whole episodes that end at a time limit.
    """
    rng = np.random.default_rng(seed)
    spaces = {**obs_space, "action": act_space}
    timesteps = {key: _random_values(space, shape, rng) for key, space in spaces.items()}
    index = np.broadcast_to(np.arange(shape[-1]), shape)
    return timesteps | {
        "reward": rng.random(shape, np.float32),
        "cont": np.ones(shape, np.float32),
        "is_first": index == 0,
        "is_last": index == shape[-1] - 1,
        "is_terminal": np.zeros(shape, bool),
    }


def _random_values(space: Space, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if space.discrete:
        return np.eye(space.shape[0], dtype=np.float32)[rng.integers(space.shape[0], size=shape)]
    if np.issubdtype(space.dtype, np.integer):
        return rng.integers(0, 256, (*shape, *space.shape), np.uint8).astype(space.dtype)
    return rng.uniform(-1.0, 1.0, (*shape, *space.shape)).astype(space.dtype)


def resident_bytes() -> int:
    """Returns the memory of this process that is in RAM now, in bytes (Linux)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Serves requests until the benchmark closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the benchmark to handle
    end_with(int(sys.argv[2]))
    sock = socket.socket(fileno=int(sys.argv[1]))
    module, _, name = sys.argv[3].partition(":")
    service: Any = None
    with contextlib.suppress(messages.DisconnectedError):
        while True:
            request, _ = messages.receive(sock)
            method, arguments = request["method"], request["arguments"]
            try:
                if method:
                    reply = {"result": getattr(service, method)(**arguments)}
                else:
                    service = getattr(importlib.import_module(module), name)(**arguments)
                    reply = {"result": None}
            except UserError as error:
                reply = {"error": str(error), "user": True}
            except Exception as error:
                trace = "".join(traceback.format_exception(error))
                reply = {"error": trace, "user": False}
            messages.send(sock, reply)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # OpenGL drivers may crash or hang in exit handlers


if __name__ == "__main__":
    main()
