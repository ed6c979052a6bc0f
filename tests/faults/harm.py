"""Runs the main program, and sends its process signals at chosen moments.

    python harm.py AGENT '[[words, [[place, count, signal, delay], ...]], ...]'

AGENT is dreamer, eager (Dreamer without graphs, which take longer to trace than short runs
take) or numpy, which needs no TensorFlow. The runs of the list follow each other
in this process. The harms of a run come one after the other, each after `count` visits of `place`
since the harm before it and `delay` seconds. Unless the signal is SIGKILL, the children of the
process get it too, as systemd and Slurm send it.
"""

import json
import os
import signal
import sys
import threading
import time
from functools import partial, wraps
from types import ModuleType, SimpleNamespace
from typing import Any

from ray_helpers import descendants

from dreamer import run
from dreamer.config.command_line import run_main
from dreamer.data.replay import Replay
from dreamer.envs.processes.pool import EnvPool

pending: list[list] = []
sync = os.fsync


def visit(place: str, descriptor: int = -1) -> None:
    """Does the next harm if it is due; the file being written is then half on the disk."""
    if not pending or pending[0][0] != place:
        return
    pending[0][1] -= 1
    if pending[0][1] >= 0:
        return
    _, _, number, delay = pending.pop(0)
    if descriptor >= 0:
        half = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY)
        os.ftruncate(half, os.fstat(half).st_size // 2)
        sync(half)
    if delay and place != "update":  # an update waits, and what goes on beside it does not
        threading.Timer(delay, send, [number]).start()
    else:
        time.sleep(delay)
        send(number)


def send(number: int) -> None:
    for pid in descendants(os.getpid()) if number != signal.SIGKILL else ():
        os.kill(pid, number)
    os.kill(os.getpid(), number)


def watch(owner: Any, name: str, place: str) -> None:
    """Makes each call of a function or method a visit of `place`."""
    original = getattr(owner, name)

    @wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        visit(place)
        return original(*args, **kwargs)

    setattr(owner, name, watched)


def fsync(descriptor: int) -> None:
    name = os.readlink(f"/proc/self/fd/{descriptor}")
    for place in ("episodes", "checkpoints"):
        if f"/{place}/." in name and ".npz" in name:
            visit(place, descriptor)
    sync(descriptor)


def without_tensorflow() -> type:
    """Makes runs use the NumPy agent, and gives the program all of TensorFlow that it asks for."""
    tensorflow: Any = ModuleType("tensorflow")
    experimental = SimpleNamespace(enable_op_determinism=lambda: None)
    tensorflow.config = SimpleNamespace(
        experimental=experimental, list_physical_devices=lambda kind: [],
        optimizer=SimpleNamespace(set_jit=lambda mode: None),
    )  # fmt: skip
    sys.modules["tensorflow"] = tensorflow
    from numpy_agent import NumpyAgent

    run.train = partial(run.train, make_agent=NumpyAgent)
    return NumpyAgent


def with_tensorflow(eager: bool) -> type:
    import tensorflow as tf

    from dreamer.agent import agent

    tf.config.run_functions_eagerly(eager)

    watch(agent, "run_interruptibly", "compile")
    return agent.Agent


if __name__ == "__main__":
    kind = sys.argv[1]
    agent_class = without_tensorflow() if kind == "numpy" else with_tensorflow(kind == "eager")
    watch(agent_class, "policy", "policy")
    watch(agent_class, "train_step", "update")
    watch(Replay, "write", "write")
    watch(EnvPool, "reset", "reset")
    os.fsync = fsync
    runs = json.loads(sys.argv[2])
    for words, harms in runs[:-1]:
        pending[:] = harms
        visit("start")
        print("status", run.main(words), flush=True)
    sys.argv[1:], pending[:] = runs[-1]
    visit("start")
    run_main(run.main)
