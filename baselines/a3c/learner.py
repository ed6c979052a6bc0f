"""One actor-learner: its environments, its current rollout, and the updates from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from baselines.a3c.agent import A3C
from baselines.observations import Arrays
from dreamer.envs.processes.pool import EnvPool
from dreamer.envs.spec import Timestep
from dreamer.errors import EnvError
from dreamer.training.collector import episode_seed


class ActorLearner:
    """Takes n steps in its environments, then applies their gradient, and so on.

    Episodes continue across rollouts. An environment whose episode has ended waits for one step,
    in which it begins a new one, so that the rollout holds the last timestep.

    If an environment fails, its episode ends with the timestep before, as at a time limit, and a
    new one begins. `EnvError` is raised only after the pool has given up.

    Args:
        agent: Networks and shared parameters.
        pool: Its environments.
        number: This learner's number; its episodes are those numbered k * learners + number.
        on_episode: Takes return and length in agent steps of each complete episode.
    """

    def __init__(
        self, agent: A3C, pool: EnvPool, number: int, on_episode: Callable[[float, int], None]
    ):
        self._agent, self._pool, self._number = agent, pool, number
        self._on_episode = on_episode
        self._timesteps: list[Timestep] = [{} for _ in range(pool.num_envs)]
        self._stack: Any = None
        self._newest: Arrays = {}
        self._returns = np.zeros(pool.num_envs)
        self._lengths = np.zeros(pool.num_envs, np.int64)

    def round(self) -> tuple[dict[str, float], Arrays]:
        """Makes one rollout and one update, and counts them in the shared counts.

        Returns:
            Metrics, and the rollout.
        """
        self._agent.refresh()
        rollout = self._rollout(self._agent.settings.n_step)
        metrics = self._agent.learn(rollout)
        self._count("updates")
        return metrics, rollout

    def _rollout(self, steps: int) -> Arrays:
        if not self._newest:
            self._reset(list(range(self._pool.num_envs)))
            self._newest = self._observe()
        stream, actions = [self._newest], []
        for _ in range(steps):
            actions.append(self._agent.choose(self._stack, True, 1 + self._number))
            lost = self._step(np.clip(actions[-1], -1.0, 1.0))
            stream[-1]["is_last"][lost] = True
            stream.append(self._observe())
        self._newest = stream[-1]
        rollout = {key: np.stack([part[key] for part in stream]) for key in stream[0]}
        return {**rollout, "action": np.stack(actions)}

    def _observe(self) -> Arrays:
        """Stacks the newest timesteps; returns the part that is learnt from, [N, ...] each."""
        newest = {key: np.stack([t[key] for t in self._timesteps]) for key in self._timesteps[0]}
        self._stack = self._agent.observations.push(self._stack, newest)
        if self._agent.settings.clip_rewards:
            newest["reward"] = np.clip(newest["reward"], -1.0, 1.0)
        return {**self._stack, **{k: newest[k] for k in ("reward", "cont", "is_last")}}

    def _step(self, actions: np.ndarray) -> list[int]:
        """Steps each environment or begins its new episode; returns those that failed in a step."""
        waiting = [i for i, timestep in enumerate(self._timesteps) if timestep["is_last"]]
        going = [i for i in range(len(self._timesteps)) if i not in waiting]
        outcomes = self._pool.step(actions[going], going) if going else []
        lost = [i for i, o in zip(going, outcomes, strict=True) if isinstance(o, EnvError)]
        for i, timestep in zip(going, outcomes, strict=True):
            if isinstance(timestep, EnvError):
                self._returns[i], self._lengths[i] = 0.0, 0
                continue
            self._timesteps[i] = timestep
            self._returns[i] += float(timestep["reward"])
            self._lengths[i] += 1
            if timestep["is_last"]:
                self._on_episode(float(self._returns[i]), int(self._lengths[i]))
                self._returns[i], self._lengths[i] = 0.0, 0
        self._count("steps", len(going) - len(lost))
        self._count("dropped", len(lost))
        self._reset(waiting + lost)
        return lost

    def _reset(self, indices: list[int]) -> None:
        """Begins an episode in each of these environments, and another one if that fails."""
        while indices:
            seeds = [self._next_seed() for _ in indices]
            outcomes = dict(zip(indices, self._pool.reset(seeds, indices), strict=True))
            indices = [i for i, timestep in outcomes.items() if isinstance(timestep, EnvError)]
            self._count("dropped", len(indices))
            for i, timestep in outcomes.items():
                if not isinstance(timestep, EnvError):
                    self._timesteps[i] = timestep

    def _next_seed(self) -> int:
        started = self._agent.shared["episodes"]
        number = int(started[self._number]) * len(started) + self._number
        self._count("episodes")
        return episode_seed(self._agent.seed, number)

    def _count(self, name: str, more: int = 1) -> None:
        self._agent.shared[name][self._number] += more
