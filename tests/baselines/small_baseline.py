"""Small agents for tests of the baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from baselines import registry
from dreamer.config.config import load_config
from dreamer.envs.spec import Space

VECTOR = {"place": Space((2,), np.dtype(np.float32))}


def make_agent(
    name: str, obs_space: Mapping[str, Space], act_space: Space, **overrides: Any
) -> Any:
    """An agent of the preset debug; the argument `d4pg__gamma` is the key d4pg.gamma."""
    values = {key.replace("__", "."): value for key, value in overrides.items()}
    config = load_config("debug", agent=name, overrides=values)
    return registry.make_agent(config, obs_space, act_space)


def set_apart(target: Any) -> None:
    """Gives a target network other weights than those it was copied from."""
    rng = np.random.default_rng(7)
    for variable in target.trainable_variables:
        variable.assign(rng.normal(size=variable.shape) / np.sqrt(max(variable.shape)))


def arrays_come_back(agent: Any, other: Any, learn: Any) -> None:
    """Asserts that `other`, given the arrays of `agent`, learns and acts as `agent` does."""
    other.load_arrays(agent.state_arrays())
    for one in (agent, other):
        learn(one)
    for key, value in agent.state_arrays().items():
        np.testing.assert_array_equal(value, other.state_arrays()[key], err_msg=key)


def returns_slowly(
    reward: np.ndarray, cont: np.ndarray, is_last: np.ndarray, value: np.ndarray, gamma: float
) -> np.ndarray:
    """n-step returns [T, N], from each timestep forward, to its episode's or the rollout's end."""
    found = np.zeros((len(reward) - 1, reward.shape[1]))
    for t, i in np.ndindex(*found.shape):
        total, factor, k = 0.0, 1.0, t
        while k < len(found) and not is_last[k, i]:
            k += 1
            total += factor * reward[k, i]
            factor *= gamma
        found[t, i] = total + factor * cont[k, i] * value[k, i]
    return found
