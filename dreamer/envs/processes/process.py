"""A worker process, seen from the pool: requests, replies, and what its failures mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dreamer.envs.processes import messages as wire
from dreamer.errors import EnvError, UserError
from dreamer.system.processes import ChildProcess

#: Seconds a worker has to close its environment before it is killed.
CLOSE_TIMEOUT = 5.0
LOG_LIMIT = 1 << 20  # bytes of a worker's output that are kept between two resets


class WorkerProcess:
    """One worker process. Processes that an environment starts (such as a game) end with it.

    Raises:
        EnvError: there is no room for another process, open file or temporary file.
    """

    def __init__(self, index: int, program: str, variables: dict[str, str]):
        self._index = index
        try:
            self._process = ChildProcess(
                "dreamer.envs.processes.worker", python=program, variables=variables
            )
        except OSError as error:
            raise EnvError(index, "did not start", str(error)) from error

    def send(self, header: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
        if header["kind"] == "reset":
            self._process.limit_log(LOG_LIMIT)
        try:
            wire.send(self._process.socket, header, arrays)
        except wire.DisconnectedError:
            raise self._death() from None

    def receive(
        self, timeout: float, on_wait: Callable[[float], None] | None = None
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        try:
            header, arrays = wire.receive(self._process.socket, timeout, on_wait)
        except wire.DisconnectedError:
            raise self._death() from None
        except TimeoutError:
            self.kill()
            message = f"no reply within {timeout:g} s"
            output = self._process.last_output()
            raise EnvError(self._index, "timed out", message, output) from None
        if header["kind"] != "error":
            return header, arrays
        if header["what"] == "user":
            raise UserError(header["message"])
        raise EnvError(self._index, header["what"], header["message"], header["traceback"])

    def _death(self) -> EnvError:
        how = self._process.describe_exit(CLOSE_TIMEOUT)
        return EnvError(self._index, "died", how, self._process.last_output())

    def ask_to_close(self) -> None:
        try:
            wire.send(self._process.socket, {"kind": "close"})
        except OSError:
            self.kill()  # it is gone or about to go; close() waits for its end

    def kill(self) -> None:
        """Kills the process and all that it has started; `close` is still needed."""
        self._process.kill()

    def close(self, timeout: float) -> None:
        """Waits `timeout` seconds for the end, then kills the process; may be called twice."""
        self._process.close(timeout)
