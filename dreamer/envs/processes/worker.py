"""A process that holds one environment and serves it over an inherited socket.

Started by the pool as `python -m dreamer.envs.processes.worker <fd> <pid>`, where `pid` is the
pool's process. It never imports TensorFlow (software OpenGL and TensorFlow crash together) and
ends when its pool is gone.
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

from dreamer.envs.make import make_env
from dreamer.envs.multitask import Padded, spaces_of
from dreamer.envs.processes import messages as wire
from dreamer.envs.spec import ContractError, Env, check_timestep
from dreamer.errors import UserError
from dreamer.system.processes import end, end_with


def main() -> None:
    """Serves requests until the pool closes the connection."""
    faulthandler.enable()
    # Whoever stops a run may signal all of its processes. What follows, the pool's decides: an
    # episode under way must not end by it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.modules["tensorflow"] = None  # type: ignore[assignment]  # an import of it now raises
    end_with(int(sys.argv[2]))
    sock = socket.socket(fileno=int(sys.argv[1]))
    try:
        _serve(sock)
    except (wire.DisconnectedError, KeyboardInterrupt):
        end(0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # OpenGL drivers may crash or hang in exit handlers


def _serve(sock: socket.socket) -> None:
    env: Env | None = None
    while True:
        request, arrays = wire.receive(sock)
        if request["kind"] == "close":
            if env is not None:
                env.close()
            return
        try:
            if request["kind"] == "make":
                env = make_env(request["task"], **request["settings"])
                wire.send(sock, _describe(env))
                continue
            if request["kind"] == "share":
                env = _padded(env, request)
                wire.send(sock, _describe(env))
                continue
            timestep = _advance(env, request, arrays)
        except BaseException as error:  # SystemExit, too: whoever runs this must hear of it
            wire.send(sock, _failure(error))
        else:
            goes_on = bool(getattr(env, "goes_on", False))
            wire.send(sock, {"kind": "timestep", "goes_on": goes_on}, timestep)


def _padded(env: Any, request: dict[str, Any]) -> Env:
    """Returns the environment in the spaces that several tasks share."""
    return Padded(env, *spaces_of(request), request["place"] and tuple(request["place"]))


def _describe(env: Env) -> dict[str, Any]:
    return {
        "kind": "ready",
        "obs_space": {key: space.to_json() for key, space in env.obs_space.items()},
        "act_space": env.act_space.to_json(),
        "action_repeat": env.action_repeat,
        "info": env.info,
    }


def _advance(env: Any, request: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
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
    # Of SystemExit the text is a bare number, if that.
    message = str(error) if isinstance(error, Exception) else repr(error)
    return {
        "kind": "error",
        "what": kind,
        "message": message or type(error).__name__,
        "traceback": "".join(traceback.format_exception(error)),
    }


if __name__ == "__main__":
    main()
