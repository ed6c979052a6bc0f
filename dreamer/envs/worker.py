"""A process that holds one environment and serves it over an inherited socket.

Started by `dreamer.envs.pool` as `python -m dreamer.envs.worker <fd> <pid>`, the process of the
pool being `pid`. It never imports TensorFlow (software OpenGL and TensorFlow crash together) and
ends when its pool is gone.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any

import numpy as np

from dreamer.envs import make_env, wire
from dreamer.envs.several import Padded, spaces_of
from dreamer.envs.spec import ContractError, Env, check_record
from dreamer.errors import UserError

_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


def main() -> None:
    """Serves requests until the pool closes the connection."""
    faulthandler.enable()
    # Whoever stops a run may signal all of its processes. What follows, the pool's decides: an
    # episode under way must not end by it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.modules["tensorflow"] = None  # type: ignore[assignment]  # an import of it now raises
    _end_with(int(sys.argv[2]))
    sock = socket.socket(fileno=int(sys.argv[1]))
    try:
        _serve(sock)
    except (wire.DisconnectedError, KeyboardInterrupt):
        _end(0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # OpenGL drivers may crash or hang in exit handlers


def _end_with(pool: int) -> None:
    """From now on this process ends when that one does, though a simulator hangs or it is halted.

    The kernel's signal makes a halted process go on, so that the thread sees what has happened and
    ends the environment's own processes as well. SIGKILL would leave those, and would come too
    early: whenever the thread ends that started this process.
    """
    if prctl := getattr(ctypes.CDLL(None), "prctl", None):  # Linux has it
        prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)
    threading.Thread(target=_watch, args=(pool, os.getppid()), daemon=True).start()


def _watch(pool: int, parent: int) -> None:
    """`parent` is the pool's process, or a script in between that the user calls their Python;
    or who has adopted this one, if the pool's is gone already."""
    while os.getppid() == parent and (parent == pool or _lives(pool)):
        time.sleep(1.0)
    _end(1)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it does, as someone else's
        pass
    return True


def _end(status: int) -> None:
    """Ends this process and, as leader of its group, whatever the environment has started."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(status)


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
            record = _advance(env, request, arrays)
        except BaseException as error:  # SystemExit, too: whoever runs this must hear of it
            wire.send(sock, _failure(error))
        else:
            goes_on = bool(getattr(env, "goes_on", False))
            wire.send(sock, {"kind": "record", "goes_on": goes_on}, record)


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
        record = env.reset(request["seed"])
    else:
        record = env.step(arrays["action"])
    check_record(record, env.obs_space)
    return record


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
