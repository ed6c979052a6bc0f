"""A worker process as the pool sees it: requests, replies, and what its failures mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dreamer.envs.processes import messages
from dreamer.errors import EnvError, UserError
from dreamer.system.processes import ChildProcess

#: Seconds that a worker has to close its environment before it is killed.
CLOSE_TIMEOUT = 5.0
LOG_LIMIT = 1 << 20  # bytes of a worker's output that are kept at a reset


class WorkerProcess(ChildProcess):
    """One worker. Processes that its environment starts, such as a game, end with it.

    Args:
        index: Number of the worker in its pool, for error messages.
        python: The interpreter that runs it.
        variables: Its environment variables.

    Raises:
        EnvError: No room for another process, open file or temporary file.
    """

    def __init__(self, index: int, python: str, variables: Mapping[str, str]):
        self._index = index
        try:
            super().__init__(
                "dreamer.envs.processes.worker", python=python, variables=variables
            )
        except OSError as error:
            raise EnvError(index, "did not start", str(error)) from error

    def send(self, header: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
        """Sends a request; raises EnvError if the worker is dead."""
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

        Raises:
            UserError: The environment raised it.
            EnvError: The worker failed otherwise; a worker that timed out is killed.
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
        """Asks the worker to close its environment and end; `close` waits for the end."""
        try:
            messages.send(self.socket, {"kind": "close"})
        except OSError:
            self.kill()  # it has ended or will soon

    def _death(self) -> EnvError:
        how = self.describe_exit(CLOSE_TIMEOUT)
        return EnvError(self._index, "died", how, self.last_output())
