"""The processes of A3C's actor-learners: started, told to go on, and heard.

Started as `python -m baselines.a3c_process <socket> <memory>`. A process has TensorFlow, and its
environments are processes again (EnvPool): software OpenGL and TensorFlow crash in one.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dreamer.config import Config
from dreamer.envs import wire
from dreamer.errors import UserError

LOG_TAIL = 4000  # bytes of a process's output that an error shows
CLOSE_TIMEOUT = 10.0  # seconds to end by itself
_ONE_THREAD = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


class LearnerError(RuntimeError):
    """An actor-learner failed or its process died; the message holds what it said."""


class Learners:
    """Processes that collect and learn at the same time, until they have taken enough steps.

    Args:
        config: Of the run.
        descriptor: Of the shared memory.
        amount: How many processes.
        calls: Number that the random streams of their actions begin with.
    """

    def __init__(self, config: Config, descriptor: int, amount: int, calls: int):
        self._processes: list[_Process] = []
        try:
            self._processes = [_Process(i, descriptor) for i in range(amount)]
            for process in self._processes:
                process.send({
                    "values": config.flat(), "agent": config.agent, "learners": amount,
                    "calls": calls,
                })  # fmt: skip
            for process in self._processes:
                process.receive()
        except BaseException:
            self.close()
            raise

    def run(
        self, check: Callable[[], None], on_episode: Callable[[float, int], None],
        stop: Callable[[], None],
    ) -> list[dict[str, float]]:  # fmt: skip
        """Lets all go on until they have reached the shared limit of steps.

        Args:
            check: Called once a second at least; may raise to end this early.
            on_episode: Takes return and length of each complete episode.
            stop: Lowers the shared limit, so that they pause; called when `check` raises.
        Returns:
            Each one's mean metrics, empty for one that made no update.
        """
        for process in self._processes:
            process.send({"go": True})
        found: dict[int, dict[str, float]] = {}
        raised: BaseException | None = None
        while len(found) < len(self._processes):
            waiting = [p for i, p in enumerate(self._processes) if i not in found]
            for process in select.select(waiting, [], [], 1.0)[0]:
                message = process.receive()
                if "metrics" in message:
                    found[process.number] = message["metrics"]
                else:
                    on_episode(message["return"], message["length"])
            try:
                if raised is None:
                    check()
            except BaseException as error:
                stop()
                raised = error  # once all have paused: a checkpoint is then of one moment
        if raised is not None:
            raise raised
        return [found[number] for number in sorted(found)]

    def close(self) -> None:
        """Ends the processes; may be called twice."""
        processes, self._processes = self._processes, []
        for process in processes:
            process.disconnect()
        deadline = time.monotonic() + CLOSE_TIMEOUT
        for process in processes:
            process.close(max(0.0, deadline - time.monotonic()))


class _Process:
    """One process, the socket to it and what it prints."""

    def __init__(self, number: int, descriptor: int):
        self.number = number
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115  # closed in close()
        self._socket, theirs = socket.socketpair()
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        variables = dict.fromkeys(_ONE_THREAD, "1")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "baselines.a3c_process", str(theirs.fileno()),
                 str(descriptor), str(number)],
                env={**os.environ, **variables, "PYTHONPATH": paths}, stdin=subprocess.DEVNULL,
                stdout=self._log, stderr=self._log, pass_fds=[theirs.fileno(), descriptor],
                start_new_session=True,  # Ctrl-C in the terminal is for the main process to handle
            )  # fmt: skip

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Mapping[str, Any]) -> None:
        try:
            wire.send(self._socket, message)
        except wire.DisconnectedError:
            raise self._death() from None

    def receive(self) -> dict[str, Any]:
        try:
            message, _ = wire.receive(self._socket)
        except wire.DisconnectedError:
            raise self._death() from None
        if "error" in message:
            kind = UserError if message["user"] else LearnerError
            raise kind(message["error"])
        return message

    def _death(self) -> LearnerError:
        code = self._process.wait()
        how = f"exit status {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - LOG_TAIL))
        tail = self._log.read().decode(errors="replace").strip()
        return LearnerError(f"actor-learner {self.number} died ({how})\n{tail}")

    def disconnect(self) -> None:
        self._socket.close()

    def close(self, timeout: float) -> None:
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


# ------------------------------------------------------------ in the process


def main() -> None:
    """Collects and learns whenever told to, until the other end closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = socket.socket(fileno=int(sys.argv[1]))
    try:
        _serve(sock, int(sys.argv[2]), int(sys.argv[3]))
    except (wire.DisconnectedError, KeyboardInterrupt):
        pass
    except Exception as error:
        user = isinstance(error, UserError)
        text = str(error) if user else "".join(traceback.format_exception(error))
        wire.send(sock, {"error": text, "user": user})
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _serve(sock: socket.socket, descriptor: int, number: int) -> None:
    start, _ = wire.receive(sock)
    config = Config(start["values"], agent=start["agent"])
    from dreamer.run import make_pool

    with make_pool(config, config.a3c.envs, training=True) as pool:
        from dreamer.device import prepare_tensorflow

        prepare_tensorflow(config.deterministic)
        from baselines.a3c import A3C
        from baselines.a3c_learner import ActorLearner

        agent = A3C(
            pool.obs_space, pool.act_space, a3c=config.section("a3c"), seed=config.seed,
            learners=start["learners"], descriptor=descriptor,
        )  # fmt: skip
        agent.policy_calls = start["calls"]

        def tell(episode_return: float, length: int) -> None:
            wire.send(sock, {"return": episode_return, "length": length})

        learner = ActorLearner(agent, pool, number, tell)
        wire.send(sock, {"ready": True})
        parent = os.getppid()
        while True:
            wire.receive(sock)
            metrics: list[dict[str, float]] = []
            shared = agent.shared
            while shared["steps"].sum() < shared["limit"][0]:
                if os.getppid() != parent:
                    return
                metrics.append(learner.round())
            means = {k: float(np.mean([m[k] for m in metrics])) for k in (metrics or [{}])[0]}
            finite = {k: v for k, v in means.items() if np.isfinite(v)}
            wire.send(sock, {"metrics": finite})


if __name__ == "__main__":
    main()
