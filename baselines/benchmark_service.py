"""An agent in a process of its own that learns from random numbers, for the benchmark."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from baselines import registry
from dreamer.benchmarks.sampling import random_timesteps
from dreamer.config.config import Config
from dreamer.config.schema import DREAMER
from dreamer.envs.spec import spaces_from_json
from dreamer.system.tensorflow import prepare_tensorflow
from dreamer.training.build import make_agent as make_dreamer

_EPISODES, _LENGTH = 20, 200  # in the replay memory of agents that have one

Work = Callable[[int], Mapping[str, Any]]
"""Runs a group of updates, given the number of the first, and returns the metrics."""


class UpdateService:
    """Runs updates as the agent's training loop does, without environments.

    Args:
        agent: Name of the agent.
        values: The config, by dotted name.
        spaces: Observation and action space, as `spaces_from_json` reads them.
    """

    def __init__(self, agent: str, values: dict[str, Any], spaces: Mapping[str, Any]) -> None:
        config = Config(values, agent=agent)
        prepare_tensorflow(config.deterministic)
        self._spaces = spaces_from_json(spaces)
        make: Callable[..., Any] = make_dreamer if agent == DREAMER else registry.make_agent
        self._agent = make(config, *self._spaces)
        self._updates, self._group = 0, 1
        if hasattr(self._agent, "memory"):
            self._group, self._timesteps = self._agent.group, self._agent.batch_size
            self._work = self._learn_from_memory()
        elif agent == "a3c":
            envs = config.envs.num_envs if config.a3c.synchronous else config.a3c.envs
            self._timesteps = config.a3c.n_step * envs
            self._work = self._learn_from_rollouts(config.a3c.n_step, envs)
        else:
            shape = config.train.batch_size, config.train.batch_length
            batch = random_timesteps(*self._spaces, shape, seed=0)
            self._timesteps = shape[0] * shape[1]
            self._work = lambda update: self._agent.train_step(batch, update)

    def timesteps(self) -> int:
        """Returns the number of timesteps or transitions that an update learns from."""
        return self._timesteps

    def update(self, count: int) -> float:
        """Runs whole groups of updates, at least `count`, and returns the seconds of `count`."""
        groups, start = -(-count // self._group), time.perf_counter()
        for _ in range(groups):
            for value in self._work(self._updates).values():
                np.asarray(value)  # waits for it
            self._updates += self._group
        return (time.perf_counter() - start) * count / (groups * self._group)

    def _learn_from_memory(self) -> Work:
        agent = self._agent
        for number in range(_EPISODES):
            agent.memory.add(random_timesteps(*self._spaces, (_LENGTH,), number))
        return lambda update: agent.train_step(
            agent.memory.sample(update, agent.group, agent.batch_size), update
        )

    def _learn_from_rollouts(self, n_step: int, envs: int) -> Work:
        """Learns from one rollout [n_step + 1, envs, ...], as an actor-learner collects it."""
        agent = self._agent
        batch = random_timesteps(*self._spaces, (n_step + 1, envs), seed=0)
        rollout = {
            key: np.zeros((n_step + 1, envs, *shape), "f4" if key == "vector" else "u1")
            for key, shape in agent.observations.shapes.items()
        }
        rollout |= {key: batch[key] for key in ("reward", "cont", "is_last")}
        rollout["action"] = batch["action"][:n_step]

        def work(update: int) -> Mapping[str, Any]:
            del update  # the learner counts by itself
            agent.refresh()
            return agent.learn(rollout)

        return work
