"""An agent in a process of its own that learns from random numbers, for `dreamer.benchmark`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from baselines import registry
from dreamer.benchmarks.services import AgentService, Work, random_timesteps

_EPISODES, _LENGTH = 20, 200  # in the replay memory of agents that have one


class BaselineService(AgentService):
    """Runs an agent's updates as its training loop does, without environments."""

    def _make_agent(self) -> Any:
        return registry.make_agent(self._config, *self._spaces)

    def _make_work(self) -> tuple[Work, int, int]:
        if hasattr(self._agent, "memory"):
            return self._learn_from_memory()
        if self._config.agent == "a3c":
            return self._learn_from_rollouts()
        return super()._make_work()

    def _learn_from_memory(self) -> tuple[Work, int, int]:
        agent = self._agent
        for number in range(_EPISODES):
            agent.memory.add(random_timesteps(*self._spaces, (_LENGTH,), number))

        def work(update: int) -> Mapping[str, Any]:
            batch = agent.memory.sample(update, agent.group, agent.batch_size)
            return agent.train_step(batch, update)

        return work, agent.group, agent.batch_size

    def _learn_from_rollouts(self) -> tuple[Work, int, int]:
        """Learns from one rollout [n_step + 1, envs, ...], as an actor-learner collects it."""
        agent, a3c = self._agent, self._config.a3c
        envs = self._config.envs.num_envs if a3c.synchronous else a3c.envs
        n_step = a3c.n_step
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

        return work, 1, n_step * envs
