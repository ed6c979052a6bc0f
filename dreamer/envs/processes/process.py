"""The process of one worker: started, spoken to, told apart when it fails, and ended for good."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from dreamer.envs.processes import messages as wire
from dreamer.errors import EnvError, UserError

#: Seconds a worker has to close its environment before it is killed.
CLOSE_TIMEOUT = 5.0
LOG_TAIL = 4000  # bytes of a worker's output that an error shows
LOG_LIMIT = 1 << 20  # bytes of a worker's output that are kept at most between two resets


class WorkerProcess:
    """One process, the socket to it and what it prints.

    It leads a process group, so that what the environment itself starts (a game's own process,
    say) ends with it.

    Raises:
        EnvError: there is no room for another process, open file or temporary file.
    """

    def __init__(self, index: int, program: str, variables: dict[str, str]):
        self._index = index
        self._closed = False
        with contextlib.ExitStack() as opened:
            try:
                self._start(program, variables, opened)
            except OSError as error:
                raise EnvError(index, "did not start", str(error)) from error
            opened.pop_all()  # close() closes them

    def _start(
        self, program: str, variables: dict[str, str], opened: contextlib.ExitStack
    ) -> None:
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115  # closed in close()
        opened.enter_context(self._log)
        self._socket, theirs = socket.socketpair()
        opened.enter_context(self._socket)
        with theirs:
            self._process = subprocess.Popen(
                [program, "-P", "-m", "dreamer.envs.processes.worker", str(theirs.fileno()),
                 str(os.getpid())],
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

    def receive(
        self, timeout: float, on_wait: Callable[[float], None] | None = None
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        try:
            header, arrays = wire.receive(self._socket, timeout, on_wait)
        except wire.DisconnectedError:
            raise self._death() from None
        except TimeoutError:
            self.kill()
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
            self.kill()
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
            self.kill()  # it is gone or going; waited for in close()

    def kill(self) -> None:
        """Ends the process and all it has started, at once; `close` is still needed."""
        if self._closed:
            return  # its number may be another's by now
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self, timeout: float) -> None:
        """Waits that long for the end, then forces it; may be called twice."""
        self._socket.close()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        self.kill()  # what it may have left of its group
        self._closed = True
        self._log.close()
