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

from dreamer.envs.make import make_from
from dreamer.envs.multitask import Padded
from dreamer.envs.processes import messages
from dreamer.envs.spec import (
    ContractError,
    Env,
    EnvSettings,
    Timestep,
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
    sock = socket.socket(fileno=int(sys.argv[1]))
    try:
        _serve(sock)
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
        try:
            if request["kind"] in ("make", "share"):
                env = _make(env, request)
                messages.send(sock, _describe(env))
                continue
            timestep = _advance(env, request, arrays)
        except BaseException as error:  # also SystemExit: the user must see it
            messages.send(sock, _failure(error))
        else:
            goes_on = bool(getattr(env, "goes_on", False))
            messages.send(sock, {"kind": "timestep", "goes_on": goes_on}, timestep)


def _make(env: Any, request: dict[str, Any]) -> Env:
    """Makes the environment, or pads the present one to the spaces that several tasks share."""
    if request["kind"] == "make":
        return make_from(request["maker"], request["name"], EnvSettings(**request["settings"]))
    obs_space, act_space = spaces_from_json(request)
    return Padded(env, obs_space, act_space, request["task"] and tuple(request["task"]))


def _describe(env: Env) -> dict[str, Any]:
    return {
        "kind": "ready",
        **spaces_to_json(env.obs_space, env.act_space),
        "action_repeat": env.action_repeat,
        "info": env.info,
    }


def _advance(env: Env, request: dict[str, Any], arrays: dict[str, np.ndarray]) -> Timestep:
    if request["kind"] == "reset":
        timestep = env.reset(request["seed"])
    else:
        timestep = env.step(arrays["action"])
    check_timestep(timestep, env.obs_space)
    return timestep


def _failure(error: BaseException) -> dict[str, Any]:
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "tensorflow":
        source = traceback.extract_tb(error.__traceback__)[-1]
        error = UserError(
            f"{source.filename}, line {source.lineno}, imports TensorFlow, but environments run "
            "in processes without it: keep the environment in a file of its own, or import "
            "TensorFlow only under `if __name__ == \"__main__\":`"
        )
    kind = "contract" if isinstance(error, ContractError) else "raised"
    if isinstance(error, UserError):
        kind = "user"
    # The text of SystemExit is at most a number.
    message = str(error) if isinstance(error, Exception) else repr(error)
    return {
        "kind": "error",
        "error": kind,
        "message": message or type(error).__name__,
        "traceback": "".join(traceback.format_exception(error)),
    }


if __name__ == "__main__":
    main()
