"""The test that every environment must pass, ours and yours."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from dreamer.envs.spec import Env, Space, Timestep, check_timestep, make_timestep
from dreamer.errors import ContractError


def check_env(env: Env, *, steps: int = 20, seed: int = 0) -> None:
    """Runs three episodes with random actions and checks them against `dreamer.envs.spec.Env`.

    Closes the environment at the end. Raises ContractError, which names the first mistake.

    Args:
        env: Environment to test.
        steps: Steps of each episode; more steps find more, such as mistakes at an episode's end.
        seed: Seed of actions and episodes.
    """
    _check_spaces(env)
    rng = np.random.default_rng(seed)
    plan = [env.act_space.sample(rng) for _ in range(steps)]
    first = _episode(env, seed, plan)
    copies = copy.deepcopy(first)
    _episode(env, seed + 1, plan[: max(1, steps // 3)])  # usually left unfinished
    _compare(first, copies, "a timestep changed after it was returned")
    again = _episode(env, seed, plan)
    _compare(again, copies, "reset(seed) and the same actions gave another episode")
    env.close()
    env.close()


def _expect(correct: Any, problem: str) -> None:
    if not correct:
        raise ContractError(problem)


def _check_spaces(env: Env) -> None:
    names = (*Env.__annotations__, "reset", "step", "close")
    missing = [name for name in names if not hasattr(env, name)]
    _expect(not missing, f"missing attributes: {missing}")
    _expect(env.obs_space, "obs_space is empty")
    for key, space in env.obs_space.items():
        _expect(isinstance(space, Space), f"obs_space[{key!r}]: expected a Space, got {space}")
    act, repeat = env.act_space, env.action_repeat
    is_vector = act.dtype == np.float32 and len(act.shape) == 1
    _expect(is_vector, f"act_space: expected float32 [A], got {act.dtype} {act.shape}")
    is_unit = np.all(act.low == -1) and np.all(act.high == 1)
    _expect(act.discrete or is_unit, "act_space: expected bounds -1 and 1 (see NormalizeActions)")
    _expect(repeat >= 1, f"action_repeat: expected at least 1, got {repeat}")


def _episode(env: Env, seed: int, actions: list[np.ndarray]) -> list[Timestep]:
    """Returns the timesteps of reset(seed) and of the actions up to the episode's end."""
    timesteps = [env.reset(seed)]
    _check_values(timesteps[0], env.obs_space)
    expected = make_timestep({}, is_first=True)
    is_start = all(timesteps[0][key] == value for key, value in expected.items())
    _expect(is_start, "reset: expected is_first alone, reward 0 and cont 1")
    for action in actions:
        given = action.copy()
        timestep = env.step(action)
        _check_values(timestep, env.obs_space)
        _expect(not timestep["is_first"], "step: is_first is for the timestep that reset returns")
        _expect(np.array_equal(given, action), "step changed the action it was given")
        timesteps.append(timestep)
        if timestep["is_last"]:
            try:
                env.step(action)
            except Exception:
                break
            raise ContractError("step after the last timestep: expected an error")
    return timesteps


def _check_values(timestep: Timestep, obs_space: dict[str, Space]) -> None:
    check_timestep(timestep, obs_space)
    for key, space in obs_space.items():
        value = timestep[key].astype(np.float64)
        margin = 1e-5 * np.maximum(1.0, np.abs(value))
        within = np.all(value >= space.low - margin) and np.all(value <= space.high + margin)
        _expect(within, f"{key}: outside of its space's bounds")


def _compare(timesteps: list[Timestep], expected: list[Timestep], problem: str) -> None:
    num, others = len(timesteps), len(expected)
    _expect(num == others, f"{problem}: {num} timesteps, then {others}")
    for index, (timestep, other) in enumerate(zip(timesteps, expected, strict=True)):
        for key, value in timestep.items():
            same = np.array_equal(value, other[key])
            _expect(same, f"{problem}: {key} of timestep {index} differs")
