"""Services: objects in processes of their own, each alone with its libraries, threads and memory.

A service is a class named `module:Class`. Its process builds one object, `Class(**settings)`, and
calls its methods by request, one at a time. Several services can therefore stay alive and be
measured in turn. Arguments and results are JSON.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from dreamer.envs.processes import messages
from dreamer.errors import UserError
from dreamer.system.processes import ChildProcess, end_with, inherited_variables

CLOSE_TIMEOUT = 5.0  # seconds that a process has to end by itself

Measure = Callable[[int], float]
"""Does something so many times and returns the seconds that it took."""


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

    def __init__(
        self, name: str, *, variables: Mapping[str, str] | None = None, **settings: Any
    ) -> None:
        self._name = name
        self._process = ChildProcess(
            __name__, name, variables=inherited_variables(**(variables or {}))
        )
        try:
            self.ask("make", **settings)
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
    try:
        while True:
            request, _ = messages.receive(sock)
            try:
                if request["method"] == "make":
                    make = getattr(importlib.import_module(module), name)
                    service, result = make(**request["arguments"]), None
                else:
                    result = getattr(service, request["method"])(**request["arguments"])
                messages.send(sock, {"result": result})
            except UserError as error:
                messages.send(sock, {"error": str(error), "user": True})
            except Exception as error:
                trace = "".join(traceback.format_exception(error))
                messages.send(sock, {"error": trace, "user": False})
    except messages.DisconnectedError:
        pass
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # OpenGL drivers may crash or hang in exit handlers


if __name__ == "__main__":
    main()
