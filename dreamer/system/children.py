"""Child processes with a socket to their parent: start them, exchange messages, and end them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dreamer.errors import ContractError, UserError
from dreamer.system import messages
from dreamer.system.messages import Message, OnWait
from dreamer.system.processes import describe_status, end, end_with

#: Takes the header and the arrays of a message and returns the answer; None ends the process.
Answer = Callable[[dict[str, Any], dict[str, np.ndarray]], Message | None]

#: Seconds for a child to end by itself before it is killed.
CLOSE_TIMEOUT = 5.0
_TAIL_BYTES = 4000  # of a child's output, for error messages


class ChildError(RuntimeError):
    """A child failed or died. The message holds its traceback or the end of its output."""


class ChildProcess:
    """A Python module that runs in a process of its own, with a socket to it and a log.

    The module is run as ``python -P -m MODULE FD PID ARGUMENTS...``: FD is its end of the socket,
    PID this process. MODULE begins with `connected_to_parent` or `serve`. The child leads a process
    group, so that Ctrl-C in the terminal does not reach it, and `kill` also ends the processes
    that it has started. `socket` is this process's end, `pid` the child's process id.

    Args:
        module: Dotted name of the module.
        arguments: Further arguments.
        variables: Environment variables to set besides this process's own. PYTHONPATH is this
            process's import path if it is not among them.
        python: The interpreter.
        pass_fds: Further file descriptors that the child inherits.

    Raises OSError if there is no room for another process, open file or temporary file.
    """

    def __init__(
        self, module: str, *arguments: str, variables: Mapping[str, str],
        python: str = sys.executable, pass_fds: Sequence[int] = (),
    ) -> None:  # fmt: skip
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        with contextlib.ExitStack() as opened:
            self._log = opened.enter_context(tempfile.TemporaryFile("a+b"))
            self.socket, theirs = socket.socketpair()
            opened.enter_context(self.socket)
            fd = theirs.fileno()
            with theirs:
                self._process = subprocess.Popen(
                    [python, "-P", "-m", module, str(fd), str(os.getpid()), *arguments],
                    env={**os.environ, "PYTHONPATH": path, **variables}, start_new_session=True,
                    stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                    pass_fds=[fd, *pass_fds],
                )  # fmt: skip
            opened.pop_all()  # close() closes them
        self.pid = self._process.pid
        self._name = " ".join([module, *arguments])
        self._closed = False

    def poll(self) -> int | None:
        """Returns the exit status, or None while the process runs."""
        return self._process.poll()

    def send(
        self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Sends a message. If the process has ended, the next `receive` reports it."""
        with contextlib.suppress(ConnectionError):
            messages.send(self.socket, header, arrays)

    def receive(self, timeout: float | None = None, on_wait: OnWait | None = None) -> Message:
        """Waits for a message; arguments as of `messages.receive`.

        Raises:
            UserError: The process reports one.
            Exception: What `failure` returns: the process reports another error, has died, or did
                not reply in time and was killed.
        """
        try:
            header, arrays = messages.receive(self.socket, timeout, on_wait)
        except ConnectionError:
            how = self.describe_exit(CLOSE_TIMEOUT)
            raise self.failure("died", how, self.last_output()) from None
        except TimeoutError as error:
            self.kill()
            message = f"no reply within {timeout:g} s"
            raise self.failure("timed out", message, self.last_output()) from error
        if "error" not in header:
            return header, arrays
        if header["error"] == "user":
            raise UserError(header["message"])
        raise self.failure(header["error"], header["message"], header["traceback"])

    def failure(self, kind: str, message: str, details: str) -> Exception:
        """Returns the error that `receive` raises; a subclass may return one of its own.

        The kinds are EnvError's. The details are the traceback, or the end of the output.
        """
        return ChildError(f"{self._name} {kind}: {message}\n{details}")

    def describe_exit(self, timeout: float) -> str:
        """Waits for the end, kills the process after `timeout` seconds, and says how it ended, as
        in "exit status 3" or "killed by SIGKILL"."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            status = self._process.wait()
        return describe_status(status)

    def last_output(self, most: int = _TAIL_BYTES) -> str:
        """Returns the end of what the process has printed, at most `most` bytes."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - most))
        return self._log.read().decode(errors="replace").strip()

    def limit_log(self, size: int) -> None:
        """Empties the log if it has more than `size` bytes."""
        if os.fstat(self._log.fileno()).st_size > size:
            self._log.truncate(0)

    def kill(self) -> None:
        """Kills the process and all that it has started; `close` is still needed."""
        if self._closed:
            return  # the kernel may have given the process id to another process
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Closes the socket, which asks the module to end, and kills it after `timeout` seconds.

        May be called twice.
        """
        if self._closed:
            return
        self.socket.close()
        self.describe_exit(timeout)
        self.kill()  # what is left of its process group
        self._closed = True
        self._log.close()


@contextlib.contextmanager
def connected_to_parent() -> Iterator[socket.socket]:
    """For the program of a ChildProcess: gives its socket, and ends this process afterwards.

    The process also ends when its parent does, or closes the connection. A user may signal all
    processes of a run to stop it. The parent decides what follows, so this one ignores signals.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    end_with(int(sys.argv[2]))
    try:
        yield socket.socket(fileno=int(sys.argv[1]))
    except ConnectionError:
        end(0)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # OpenGL drivers may crash or hang in exit handlers


def serve(answer: Answer) -> None:
    """For the program of a ChildProcess: answers its parent's messages one at a time.

    An exception of `answer`, even SystemExit, is sent to the parent, whose `receive` raises it.
    """
    with connected_to_parent() as sock:
        while True:
            request, arrays = messages.receive(sock)
            try:
                reply = answer(request, arrays)
                if reply is None:
                    return
                messages.send(sock, *reply)
            except BaseException as error:
                messages.send(sock, describe_error(error))


def describe_error(error: BaseException) -> dict[str, Any]:
    """Returns the message for an error that the parent's `receive` is to raise."""
    kinds = {UserError: "user", ContractError: "contract", BaseException: "raised"}
    # The text of SystemExit is at most a number.
    message = str(error) if isinstance(error, Exception) else repr(error)
    return {
        "error": next(name for kind, name in kinds.items() if isinstance(error, kind)),
        "message": message or type(error).__name__,
        "traceback": "".join(traceback.format_exception(error)),
    }
