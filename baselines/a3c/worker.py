"""The process of one of A3C's actor-learners: collects and learns when the run says so.

Started by baselines.a3c.processes as `python -m baselines.a3c.worker <socket> <pid> <memory>
<number>`, the run's process being `pid`. It has TensorFlow, and its environments run in processes
of their own (EnvPool): software OpenGL and TensorFlow crash in one.
"""

from __future__ import annotations

import signal
import socket
import sys
import traceback
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from dreamer.config.config import Config
from dreamer.envs.processes import messages as wire
from dreamer.envs.processes.pool import EnvRestartWarning
from dreamer.errors import EnvError, UserError
from dreamer.system.processes import end_with

if TYPE_CHECKING:
    from baselines.a3c.learner import ActorLearner
    from baselines.a3c.shared_memory import SharedArrays


def main() -> None:
    """Collects and learns when the run says so, until it closes the connection."""
    # A signal to a run may reach all of its processes; the main process decides what follows.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    end_with(int(sys.argv[2]))
    sock = socket.socket(fileno=int(sys.argv[1]))
    try:
        _serve(sock, int(sys.argv[3]), int(sys.argv[4]))
    except (wire.DisconnectedError, KeyboardInterrupt):
        pass
    except Exception as error:
        wire.send(sock, {"error": _describe(error)})
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _describe(error: Exception) -> dict[str, Any]:
    """Returns the message that `_Process.receive` turns into an error."""
    if isinstance(error, UserError):
        return {"user": str(error)}
    if isinstance(error, EnvError):
        return {"environment": [error.index, error.kind, error.message, error.traceback]}
    return {"traceback": "".join(traceback.format_exception(error))}


def _tell_failures(sock: socket.socket) -> None:
    """Sends the pool's warnings to the run, because nobody sees what this process prints."""
    show = warnings.showwarning

    def tell(message, category, *place, **more) -> None:
        if issubclass(category, EnvRestartWarning):
            wire.send(sock, {"warning": str(message)})
        else:
            show(message, category, *place, **more)

    warnings.showwarning = tell


def _serve(sock: socket.socket, descriptor: int, number: int) -> None:
    start, _ = wire.receive(sock)
    config = Config(start["values"], agent=start["agent"])
    from dreamer.training.build import make_pool

    with make_pool(config, config.a3c.envs, training=True) as pool:
        from dreamer.system.tensorflow import prepare_tensorflow

        prepare_tensorflow(config.deterministic)
        from baselines.a3c.agent import A3C
        from baselines.a3c.learner import ActorLearner

        agent = A3C(
            pool.obs_space, pool.act_space, a3c=config.section("a3c"), seed=config.seed,
            learners=start["learners"], descriptor=descriptor,
        )  # fmt: skip
        agent.policy_calls = start["calls"]

        def tell(episode_return: float, length: int) -> None:
            wire.send(sock, {"return": episode_return, "length": length})

        learner = ActorLearner(agent, pool, number, tell)
        _tell_failures(sock)
        wire.send(sock, {"ready": True})
        _work(sock, learner, agent.shared)


def _work(sock: socket.socket, learner: ActorLearner, shared: SharedArrays) -> None:
    """Makes rounds up to the shared limit, each time the run says so."""
    lost = False
    while True:
        wire.receive(sock)
        metrics: list[dict[str, float]] = []
        while shared["steps"].sum() < shared["limit"][0]:
            found, rollout = learner.round()
            if found["nonfinite"] or lost:  # the next one ends a row of them
                number = int(shared["updates"].sum()) - 1
                wire.send(sock, {"update": number, "metrics": found}, rollout)
            lost = bool(found["nonfinite"])
            metrics.append(found)
        means = {k: float(np.mean([m[k] for m in metrics])) for k in (metrics or [{}])[0]}
        wire.send(sock, {"done": {k: v for k, v in means.items() if np.isfinite(v)}})


if __name__ == "__main__":
    main()
