"""One actor-learner: its environments, its current rollout, and the updates from it.

baselines.a3c.rounds runs this module as a ChildProcess, with the arguments <memory> <number>, or
uses `ActorLearner` itself. The process has TensorFlow, and its environments run in processes of
their own (EnvPool), because software OpenGL and TensorFlow crash in one.
"""

from __future__ import annotations

import socket
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.observations import Arrays
from dreamer.config.config import Config
from dreamer.envs.processes.pool import EnvPool, EnvRestartWarning
from dreamer.envs.spec import Timestep
from dreamer.errors import EnvError
from dreamer.system import messages
from dreamer.system.children import connected_to_parent, describe_error
from dreamer.system.tensorflow import prepare_tensorflow
from dreamer.training.build import make_pool
from dreamer.training.collector import episode_seed, stack

if TYPE_CHECKING:
    from baselines.a3c.a3c import A3C


@dataclass(eq=False)
class ActorLearner:
    """Takes n steps in its environments, then applies their gradient, and so on.

    Episodes continue across rollouts. An environment whose episode has ended waits for one step,
    in which it begins a new one, so that the rollout holds the last timestep.

    If an environment fails, its episode ends with the timestep before, as at a time limit, and a
    new one begins. `EnvError` is raised only after the pool has given up.
    """

    agent: A3C  # networks and shared parameters
    pool: EnvPool
    number: int  # this learner's; its episodes have the numbers k * learners + number
    on_episode: Callable[[float, int], None]  # takes an episode's return and agent steps

    def __post_init__(self) -> None:
        self._timesteps: list[Timestep] = [{} for _ in range(self.pool.num_envs)]
        self._stack: Any = None
        self._newest: Arrays = {}
        self._returns = np.zeros(self.pool.num_envs)
        self._lengths = np.zeros(self.pool.num_envs, np.int64)

    def round(self) -> tuple[dict[str, float], Arrays]:
        """Makes one rollout and one update, and counts them; returns metrics and the rollout."""
        self.agent.refresh()
        rollout = self._rollout(self.agent.settings.n_step)
        metrics = self.agent.learn(rollout)
        self._count("updates")
        return metrics, rollout

    def _rollout(self, steps: int) -> Arrays:
        if not self._newest:
            self._reset(list(range(self.pool.num_envs)))
            self._newest = self._observe()
        stream, actions = [self._newest], []
        for _ in range(steps):
            actions.append(self.agent.choose(self._stack, True, 1 + self.number))
            lost = self._step(np.clip(actions[-1], -1.0, 1.0))
            stream[-1]["is_last"][lost] = True
            stream.append(self._observe())
        self._newest = stream[-1]
        return {**stack(stream), "action": np.stack(actions)}

    def _observe(self) -> Arrays:
        """Stacks the newest timesteps; returns the part that is learnt from, [N, ...] each."""
        newest = stack(self._timesteps)
        self._stack = self.agent.observations.push(self._stack, newest)
        if self.agent.settings.clip_rewards:
            newest["reward"] = np.clip(newest["reward"], -1.0, 1.0)
        return {**self._stack, **{k: newest[k] for k in ("reward", "cont", "is_last")}}

    def _step(self, actions: np.ndarray) -> list[int]:
        """Steps each environment or begins its new episode; returns those that failed in a step."""
        waiting = [i for i, timestep in enumerate(self._timesteps) if timestep["is_last"]]
        going = [i for i in range(len(self._timesteps)) if i not in waiting]
        outcomes = self.pool.step(actions[going], going) if going else []
        lost = []
        for i, timestep in zip(going, outcomes, strict=True):
            if isinstance(timestep, EnvError):
                lost.append(i)
                continue
            self._timesteps[i] = timestep
            self._returns[i] += float(timestep["reward"])
            self._lengths[i] += 1
            if timestep["is_last"]:
                self.on_episode(float(self._returns[i]), int(self._lengths[i]))
        self._count("steps", len(going) - len(lost))
        self._count("dropped", len(lost))
        self._reset(waiting + lost)
        return lost

    def _reset(self, indices: list[int]) -> None:
        """Begins an episode in each of these environments, and another one if that fails."""
        while indices:
            seeds = [self._next_seed() for _ in indices]
            outcomes = dict(zip(indices, self.pool.reset(seeds, indices), strict=True))
            indices = [i for i, timestep in outcomes.items() if isinstance(timestep, EnvError)]
            self._count("dropped", len(indices))
            for i, timestep in outcomes.items():
                if not isinstance(timestep, EnvError):
                    self._timesteps[i], self._returns[i], self._lengths[i] = timestep, 0.0, 0

    def _next_seed(self) -> int:
        started = self.agent.shared["episodes"]
        number = int(started[self.number]) * len(started) + self.number
        self._count("episodes")
        return episode_seed(self.agent.seed, number)

    def _count(self, name: str, more: int = 1) -> None:
        self.agent.shared[name][self.number] += more


def main() -> None:
    """Collects and learns when the run says so, until the run closes the connection."""
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
    with make_pool(config, config.a3c.envs, training=True, part=number) as pool:
        prepare_tensorflow(config.deterministic)  # before anything imports TensorFlow
        from baselines.a3c.a3c import A3C

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
            if metrics["nonfinite"] or nonfinite:  # the first finite one ends the run's count
                number = int(shared["updates"].sum()) - 1
                messages.send(sock, {"update": number, "metrics": metrics}, rollout)
            nonfinite = bool(metrics["nonfinite"])
            rounds.append(metrics)
        means = {k: float(np.mean([m[k] for m in rounds])) for k in (rounds or [{}])[0]}
        messages.send(sock, {"done": {k: v for k, v in means.items() if np.isfinite(v)}})


if __name__ == "__main__":
    main()
