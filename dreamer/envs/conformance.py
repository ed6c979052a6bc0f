"""The test that every environment must pass, ours and yours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dreamer.envs.spec import ContractError, Env, Space, Timestep, check_timestep


def check_env(env: Env, *, steps: int = 20, seed: int = 0) -> None:
    """Runs three episodes with random actions and checks them against `dreamer.envs.spec.Env`.

    Closes the environment at the end.

    Args:
        env: Environment to test.
        steps: Steps of each episode; more steps find more, such as mistakes at an episode's end.
        seed: Seed of actions and episodes.

    Raises:
        ContractError: Names the first mistake.
    """
    _check_spaces(env)
    actions = np.random.default_rng(seed)
    plan = [env.act_space.sample(actions) for _ in range(steps)]
    first = _episode(env, seed, plan)
    copies = [{key: value.copy() for key, value in timestep.items()} for timestep in first]
    _episode(env, seed + 1, plan[: max(1, steps // 3)])  # usually left unfinished
    _compare(first, copies, "a timestep changed after it was returned")
    again = _episode(env, seed, plan)
    _compare(again, copies, "reset(seed) and the same actions gave another episode")
    env.close()
    env.close()


def _check_spaces(env: Env) -> None:
    if not isinstance(env, Env):
        missing = [name for name in (*Env.__annotations__, "reset", "step", "close")
                   if not hasattr(env, name)]  # fmt: skip
        raise ContractError(f"missing attributes: {missing}")
    if not env.obs_space:
        raise ContractError("obs_space is empty")
    for key, space in env.obs_space.items():
        if not isinstance(space, Space):
            raise ContractError(f"obs_space[{key!r}]: expected a Space, got {type(space).__name__}")
    act = env.act_space
    if act.dtype != np.float32 or len(act.shape) != 1:
        raise ContractError(f"act_space: expected float32 [A], got {act.dtype} {act.shape}")
    if not act.discrete and (np.any(act.low != -1) or np.any(act.high != 1)):
        raise ContractError("act_space: expected bounds -1 and 1 (see NormalizeActions)")
    if env.action_repeat < 1:
        raise ContractError(f"action_repeat: expected at least 1, got {env.action_repeat}")


def _episode(env: Env, seed: int, actions: list[np.ndarray]) -> list[Timestep]:
    """Returns the timesteps of reset(seed) and of the actions up to the episode's end."""
    timestep = env.reset(seed)
    _check_values(timestep, env.obs_space)
    flags = [bool(timestep[key]) for key in ("is_first", "is_last", "is_terminal")]
    if flags != [True, False, False] or timestep["reward"] != 0 or timestep["cont"] != 1:
        raise ContractError("reset: expected is_first alone, reward 0 and cont 1")
    timesteps = [timestep]
    for action in actions:
        given = action.copy()
        timestep = env.step(action)
        _check_values(timestep, env.obs_space)
        if timestep["is_first"]:
            raise ContractError("step: is_first is for the timestep that reset returns")
        if not np.array_equal(given, action):
            raise ContractError("step changed the action it was given")
        timesteps.append(timestep)
        if timestep["is_last"]:
            _must_raise(env.step, action)
            break
    return timesteps


def _must_raise(step: Callable[[np.ndarray], Timestep], action: np.ndarray) -> None:
    try:
        step(action)
    except Exception:
        return
    raise ContractError("step after the last timestep: expected an error, for it loses the reset")


def _check_values(timestep: Timestep, obs_space: dict[str, Space]) -> None:
    check_timestep(timestep, obs_space)
    for key, space in obs_space.items():
        value = timestep[key].astype(np.float64)
        margin = 1e-5 * np.maximum(1.0, np.abs(value))
        if np.any(value < space.low - margin) or np.any(value > space.high + margin):
            raise ContractError(f"{key}: outside of its space's bounds")


def _compare(timesteps: list[Timestep], expected: list[Timestep], problem: str) -> None:
    if len(timesteps) != len(expected):
        raise ContractError(f"{problem}: {len(timesteps)} timesteps, then {len(expected)}")
    for index, (timestep, other) in enumerate(zip(timesteps, expected, strict=True)):
        for key, value in timestep.items():
            if not np.array_equal(value, other[key]):
                raise ContractError(f"{problem}: {key} of timestep {index} differs")
