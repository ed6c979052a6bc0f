"""An agent in a process of its own that learns from random numbers, for the benchmark."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from baselines import registry
from dreamer.benchmarks.synthetic import random_batch, random_episode
from dreamer.config.config import Config
from dreamer.config.schema import DREAMER
from dreamer.envs.spec import Space
from dreamer.system.tensorflow import prepare_tensorflow

_EPISODES, _LENGTH = 20, 200  # in the memory of agents that have one


class UpdateService:
    """Makes updates as the agent's loop does, without environments.

    Args:
        agent: Its name.
        values: The config, by dotted name.
        obs_space, act_space: `Space.to_json` of the environment's.
    """

    def __init__(
        self, agent: str, values: dict[str, Any], obs_space: Mapping[str, Any], act_space: Any
    ):
        config = Config(values, agent=agent)
        prepare_tensorflow(config.deterministic)
        spaces = ({k: Space.from_json(s) for k, s in obs_space.items()}, Space.from_json(act_space))
        if agent == DREAMER:
            from dreamer.run import make_agent as make
        else:
            make = registry.make_agent
        self._agent, self._updates = make(config, *spaces), 0
        if hasattr(self._agent, "memory"):
            self._group, self._work = self._replaying(spaces)
            self._records = self._agent.batch_size
        elif agent == "a3c":
            self._group, self._work = 1, self._rolling(config, spaces)
            self._records = config.a3c.n_step * environments(config)
        else:
            size = config.train.batch_size, config.train.batch_length
            batch = random_batch(*spaces, *size, seed=0)
            self._group, self._records = 1, size[0] * size[1]
            self._work = lambda update: self._agent.train_step(batch, update)

    def records(self) -> int:
        """Records or transitions that an update learns from."""
        return self._records

    def update(self, count: int) -> float:
        """Makes that many updates, in whole groups; returns the seconds that they would take."""
        groups, start = -(-count // self._group), time.perf_counter()
        for _ in range(groups):
            for value in self._work(self._updates).values():
                float(value)
            self._updates += self._group
        return (time.perf_counter() - start) * count / (groups * self._group)

    def _replaying(self, spaces) -> tuple[int, Callable[[int], Mapping[str, Any]]]:
        agent, rng = self._agent, np.random.default_rng(0)
        for _ in range(_EPISODES):
            agent.memory.add(random_episode(*spaces, _LENGTH, rng))

        def work(update: int) -> Mapping[str, Any]:
            batch = agent.memory.sample(update, agent.group, agent.batch_size)
            return agent.train_step(batch, update)

        return agent.group, work

    def _rolling(self, config: Config, spaces) -> Callable[[int], Mapping[str, Any]]:
        n, envs = config.a3c.n_step, environments(config)
        batch = random_batch(*spaces, n + 1, envs, seed=0)
        agent = self._agent
        shapes = agent.observations.shapes
        rollout = {k: np.zeros((n + 1, envs, *s), np.float32 if k == "vector"
                               else np.uint8) for k, s in shapes.items()}  # fmt: skip
        rollout |= {k: batch[k] for k in ("reward", "cont", "is_last")}
        rollout["action"] = batch["action"][:n]

        def work(update: int) -> Mapping[str, Any]:
            del update
            agent.refresh()
            return agent.learn(rollout)

        return work


def environments(config: Config) -> int:
    """Environments of one of A3C's learners."""
    return config.envs.num_envs if config.a3c.synchronous else config.a3c.envs
