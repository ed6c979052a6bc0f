"""Processes that hold what is measured, each alone with its libraries, threads and memory.

A service is a class named `module:Class`. Its process builds one object of it, `Class(**settings)`,
and then calls methods by request, one at a time, so that services which all stay alive can be
measured in turn. Arguments and results are JSON. Started as
`python -m dreamer.benchmarks.helper <fd> <module:Class>`.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from typing import Any

from dreamer.envs.processes import messages as wire
from dreamer.errors import UserError

LOG_TAIL = 4000  # bytes of a process's output that an error shows
CLOSE_TIMEOUT = 5.0  # seconds to end by itself


class HelperError(RuntimeError):
    """A service failed or its process died; the message holds what it said."""


class Helper:
    """One process with one service.

    Args:
        service: `module:Class`.
        variables: Environment variables beside this process's own.
        **settings: What the class is built with; JSON types.

    Raises:
        UserError: as the service raised it.
        HelperError: anything else went wrong in that process.
    """

    def __init__(
        self, service: str, *, variables: Mapping[str, str] | None = None, **settings: Any
    ) -> None:
        self._service = service
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115  # closed in close()
        self._socket, theirs = socket.socketpair()
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "dreamer.benchmarks.helper", str(theirs.fileno()),
                 service],
                env={**os.environ, **(variables or {}), "PYTHONPATH": paths},
                stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        try:
            self.ask("make", **settings)
        except BaseException:
            self.close()
            raise

    def ask(self, method: str, **arguments: Any) -> Any:
        """Calls a method of the service and returns its result."""
        try:
            wire.send(self._socket, {"method": method, "arguments": arguments})
            reply, _ = wire.receive(self._socket)
        except wire.DisconnectedError:
            code = self._process.wait()
            how = f"exit status {code}" if code >= 0 else signal.Signals(-code).name
            raise HelperError(f"{self._service} died ({how})\n{self._tail()}") from None
        if "error" in reply:
            raise (UserError if reply["user"] else HelperError)(reply["error"])
        return reply["result"]

    def close(self) -> None:
        """Ends the process; may be called twice."""
        self._socket.close()
        try:
            self._process.wait(CLOSE_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __enter__(self) -> Helper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tail(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - LOG_TAIL))
        return self._log.read().decode(errors="replace").strip()


def resident_bytes() -> int:
    """Memory of this process that lies in RAM now, in bytes (Linux)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Serves requests until the other end closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the benchmark to handle
    sock = socket.socket(fileno=int(sys.argv[1]))
    module, _, name = sys.argv[2].partition(":")
    service: Any = None
    try:
        while True:
            request, _ = wire.receive(sock)
            try:
                if request["method"] == "make":
                    service = getattr(importlib.import_module(module), name)
                    service, result = service(**request["arguments"]), None
                else:
                    result = getattr(service, request["method"])(**request["arguments"])
                wire.send(sock, {"result": result})
            except Exception as error:
                wire.send(sock, _failure(error))
    except wire.DisconnectedError:
        pass
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # OpenGL drivers may crash or hang in exit handlers


def _failure(error: Exception) -> dict[str, Any]:
    if isinstance(error, UserError):
        return {"error": str(error), "user": True}
    return {"error": "".join(traceback.format_exception(error)), "user": False}


if __name__ == "__main__":
    main()
