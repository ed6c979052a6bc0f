"""The program of a worker process, which serves one environment over an inherited socket.

The pool starts it as `python -m dreamer.envs.processes.worker <fd> <pid>`, where `pid` is the
pool's process. It never imports TensorFlow, because software OpenGL and TensorFlow crash together.
It ends with its pool.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
import traceback
from typing import Any

import numpy as np

from dreamer.envs.make import find_function
from dreamer.envs.multitask import Padded
from dreamer.envs.processes import messages
from dreamer.envs.spec import (
    ContractError,
    EnvSettings,
    check_timestep,
    spaces_from_json,
    spaces_to_json,
)
from dreamer.errors import UserError
from dreamer.system.processes import end, end_with


def main() -> None:
    """Serves requests until the pool closes the connection."""
    faulthandler.enable()
    # A user may signal all processes of a run to stop it. The pool's process decides what follows:
    # the present episode must not end by the signal.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.modules["tensorflow"] = None  # type: ignore[assignment]  # importing it now raises
    end_with(int(sys.argv[2]))
    try:
        _serve(socket.socket(fileno=int(sys.argv[1])))
    except (messages.DisconnectedError, KeyboardInterrupt):
        end(0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # OpenGL drivers may crash or hang in exit handlers


def _serve(sock: socket.socket) -> None:
    env: Any = None
    while True:
        request, arrays = messages.receive(sock)
        if request["kind"] == "close":
            if env is not None:
                env.close()
            return
        timestep = None
        try:
            if request["kind"] in ("reset", "step"):
                timestep = _advance(env, request, arrays)
                reply = {"kind": "timestep", "goes_on": bool(getattr(env, "goes_on", False))}
            else:
                env = _make(env, request)
                spaces = spaces_to_json(env.obs_space, env.act_space)
                reply = {"kind": "ready", **spaces, "action_repeat": env.action_repeat,
                         "info": env.info}  # fmt: skip
            messages.send(sock, reply, timestep)
        except BaseException as error:  # also SystemExit: the user must see it
            messages.send(sock, _failure(error))


def _make(env: Any, request: dict[str, Any]) -> Any:
    """Makes the environment, or pads the present one to the spaces that several tasks share."""
    if request["kind"] == "make":
        settings = EnvSettings(**request["settings"])
        return find_function(request["maker"])(request["name"], settings)
    return Padded(env, *spaces_from_json(request), request["task"])


def _advance(
    env: Any, request: dict[str, Any], arrays: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    is_reset = request["kind"] == "reset"
    timestep = env.reset(request["seed"]) if is_reset else env.step(arrays["action"])
    check_timestep(timestep, env.obs_space)
    return timestep


def _failure(error: BaseException) -> dict[str, Any]:
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "tensorflow":
        source = traceback.extract_tb(error.__traceback__)[-1]
        error = UserError(
            f"{source.filename}, line {source.lineno}, imports TensorFlow, but environments run "
            "in processes without it: keep the environment in a file of its own, or import "
            'TensorFlow only under `if __name__ == "__main__":`'
        )
    kinds = {UserError: "user", ContractError: "contract", BaseException: "raised"}
    # The text of SystemExit is at most a number.
    message = str(error) if isinstance(error, Exception) else repr(error)
    return {
        "kind": "error",
        "error": next(name for kind, name in kinds.items() if isinstance(error, kind)),
        "message": message or type(error).__name__,
        "traceback": "".join(traceback.format_exception(error)),
    }


if __name__ == "__main__":
    main()
