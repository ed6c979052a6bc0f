"""The process of one of A3C's actor-learners: collects and learns when the run says so.

baselines.a3c.collector starts it as a ChildProcess with the arguments <memory> <number>. It has
TensorFlow, and its environments run in processes of their own (EnvPool), because software OpenGL
and TensorFlow crash in one.
"""

from __future__ import annotations

import socket
import sys
import warnings
from typing import TYPE_CHECKING

import numpy as np

from dreamer.config.config import Config
from dreamer.envs.processes.pool import EnvRestartWarning
from dreamer.errors import EnvError
from dreamer.system import messages
from dreamer.system.processes import connected_to_parent, describe_error
from dreamer.training.build import make_pool

if TYPE_CHECKING:
    from baselines.a3c.learner import ActorLearner


def main() -> None:
    """Collects and learns when the run says so, until it closes the connection."""
    memory, learner = map(int, sys.argv[3:])
    with connected_to_parent() as sock:
        try:
            _serve(sock, memory, learner)
        except EnvError as error:
            values = error.index, error.kind, error.message, error.traceback
            messages.send(sock, {"environment": values})
        except Exception as error:
            messages.send(sock, describe_error(error))


def _send_warnings(sock: socket.socket) -> None:
    """Sends the pool's warnings to the run, because nobody sees what this process prints."""
    show = warnings.showwarning

    def send(message, category, *place, **more) -> None:
        if issubclass(category, EnvRestartWarning):
            messages.send(sock, {"warning": str(message)})
        else:
            show(message, category, *place, **more)

    warnings.showwarning = send


def _serve(sock: socket.socket, memory: int, number: int) -> None:
    start, _ = messages.receive(sock)
    config = Config(start["values"], agent=start["agent"])
    with make_pool(config, config.a3c.envs, training=True) as pool:
        from dreamer.system.tensorflow import prepare_tensorflow

        prepare_tensorflow(config.deterministic)
        from baselines.a3c.agent import A3C
        from baselines.a3c.learner import ActorLearner

        agent = A3C(config, pool.obs_space, pool.act_space, memory)
        agent.policy_calls = start["calls"]

        def send_return(episode_return: float, length: int) -> None:
            messages.send(sock, {"return": episode_return, "length": length})

        learner = ActorLearner(agent, pool, number, send_return)
        _send_warnings(sock)
        messages.send(sock, {"ready": True})
        _work(sock, learner, agent.shared)


def _work(sock: socket.socket, learner: ActorLearner, shared: dict[str, np.ndarray]) -> None:
    """Makes rounds up to the shared limit, each time the run says so, and sends mean metrics."""
    nonfinite = False
    while True:
        messages.receive(sock)
        rounds: list[dict[str, float]] = []
        while shared["steps"].sum() < shared["limit"][0]:
            metrics, rollout = learner.round()
            if metrics["nonfinite"] or nonfinite:  # the next one ends a row of them
                number = int(shared["updates"].sum()) - 1
                messages.send(sock, {"update": number, "metrics": metrics}, rollout)
            nonfinite = bool(metrics["nonfinite"])
            rounds.append(metrics)
        means = {k: float(np.mean([m[k] for m in rounds])) for k in (rounds or [{}])[0]}
        messages.send(sock, {"done": {k: v for k, v in means.items() if np.isfinite(v)}})


if __name__ == "__main__":
    main()
