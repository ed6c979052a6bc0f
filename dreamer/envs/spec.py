"""The contract of every environment: what it says about itself, what a step returns.

A timestep t of an episode holds the observation at t, the reward received on arriving there and the
episode's flags. The action that led to it is added by the collector, not by the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

Timestep = dict[str, np.ndarray]

#: Keys of a timestep besides the observation's: name -> dtype, all of shape [].
SCALARS = {
    "reward": np.dtype(np.float32),
    "cont": np.dtype(np.float32),
    "is_first": np.dtype(bool),
    "is_last": np.dtype(bool),
    "is_terminal": np.dtype(bool),
}


class ContractError(ValueError):
    """An environment returned something that its own spaces or this contract do not allow."""


@dataclass(frozen=True, eq=False)
class Space:
    """Shape, dtype and bounds of one array.

    Attributes:
        shape: of one value, without batch or time axes.
        dtype: NumPy dtype (anything `np.dtype` takes).
        low, high: bounds, a float for all elements or an array of `shape`; infinite if unbounded.
        discrete: the value is a one-hot float32 vector [A].
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    low: float | np.ndarray = -np.inf
    high: float | np.ndarray = np.inf
    discrete: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        object.__setattr__(self, "dtype", np.dtype(self.dtype))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Space):
            return NotImplemented
        return (
            (self.shape, self.dtype, self.discrete) == (other.shape, other.dtype, other.discrete)
            and np.array_equal(self._full(self.low), self._full(other.low))
            and np.array_equal(self._full(self.high), self._full(other.high))
        )

    __hash__ = None  # type: ignore[assignment]  # bounds may be arrays

    def _full(self, bound: float | np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.asarray(bound, np.float64), self.shape)

    @property
    def is_image(self) -> bool:
        """Whether a value is an image: uint8 [height, width, channels]."""
        return self.dtype == np.uint8 and len(self.shape) == 3

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """Returns a uniform value of this space; unbounded elements are drawn from [-1, 1]."""
        if self.discrete:
            return np.eye(self.shape[0], dtype=self.dtype)[rng.integers(self.shape[0])]
        low, high = self._full(self.low), self._full(self.high)
        bounded = np.isfinite(low) & np.isfinite(high)
        low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
        if np.issubdtype(self.dtype, np.integer):
            return rng.integers(low, high, endpoint=True).astype(self.dtype)
        return rng.uniform(low, high).astype(self.dtype)

    def check(self, value: Any, name: str) -> None:
        """Raises ContractError where `value` has another shape or dtype, or is not finite."""
        if not isinstance(value, np.ndarray | np.generic):
            raise ContractError(f"{name}: expected a NumPy array, got {type(value).__name__}")
        if value.shape != self.shape:
            raise ContractError(f"{name}: expected shape {self.shape}, got {value.shape}")
        if value.dtype != self.dtype:
            raise ContractError(f"{name}: expected dtype {self.dtype}, got {value.dtype}")
        if self.dtype.kind == "f" and not np.all(np.isfinite(value)):
            raise ContractError(f"{name}: not finite: {value}")

    def to_json(self) -> dict[str, Any]:
        """Returns a description made of JSON types; `from_json` reads it."""
        return {
            "shape": list(self.shape),
            "dtype": self.dtype.str,
            "low": np.asarray(self.low).tolist(),
            "high": np.asarray(self.high).tolist(),
            "discrete": self.discrete,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Space:
        def bound(value: Any) -> float | np.ndarray:
            return np.asarray(value, np.float64) if isinstance(value, list) else float(value)

        return cls(
            tuple(data["shape"]), np.dtype(data["dtype"]),
            bound(data["low"]), bound(data["high"]), bool(data["discrete"]),
        )  # fmt: skip


@runtime_checkable
class Env(Protocol):
    """One environment; `dreamer.envs.conformance.check_env` tests an object against this contract.

    Attributes:
        obs_space: one Space per observation key.
        act_space: float32 [A] in [-1, 1], or one-hot float32 [A] (`discrete`).
        action_repeat: environment frames one step takes.
        info: facts worth logging, such as the renderer's name.
        goes_on: optional; whether the next episode goes on from this one's end whatever its seed,
            as a game of Atari does after a lost life. Without it, none does.
    """

    obs_space: dict[str, Space]
    act_space: Space
    action_repeat: int
    info: dict[str, str]

    def reset(self, seed: int | None = None) -> Timestep:
        """Starts an episode; returns its first timestep (reward 0, cont 1, is_first).

        With a seed, the episode is a function of that seed and of the actions, whatever came
        before. Without, the environment's own random stream goes on. (One exception: a game of
        Atari that goes on after a lost life, see `dreamer.envs.atari.Atari`.)
        """

    def step(self, action: np.ndarray) -> Timestep:
        """Applies `action` [A] for `action_repeat` frames; returns the timestep it leads to.

        `reward` is the sum over the frames. `is_last` ends the episode; `is_terminal`, with cont 0,
        only where the task itself ended: a time limit is last but not terminal.
        """

    def close(self) -> None:
        """Frees what the environment holds; may be called twice."""


def make_timestep(
    obs: Mapping[str, np.ndarray],
    reward: float = 0.0,
    *,
    is_first: bool = False,
    is_last: bool = False,
    is_terminal: bool = False,
) -> Timestep:
    """Returns a timestep from its parts; `cont` follows from `is_terminal`."""
    return {
        **obs,
        "reward": np.asarray(reward, np.float32),
        "cont": np.asarray(0.0 if is_terminal else 1.0, np.float32),
        "is_first": np.asarray(is_first, bool),
        "is_last": np.asarray(is_last, bool),
        "is_terminal": np.asarray(is_terminal, bool),
    }


def check_timestep(timestep: Timestep, obs_space: Mapping[str, Space]) -> None:
    """Raises ContractError naming the first thing wrong with `timestep`."""
    if timestep.keys() != obs_space.keys() | SCALARS.keys():
        missing = sorted((obs_space.keys() | SCALARS.keys()) - timestep.keys())
        foreign = sorted(timestep.keys() - obs_space.keys() - SCALARS.keys())
        raise ContractError(f"timestep: missing keys {missing}, unexpected keys {foreign}")
    for key, space in obs_space.items():
        space.check(timestep[key], key)
    for key, dtype in SCALARS.items():
        Space((), dtype).check(timestep[key], key)
    if bool(timestep["is_terminal"]) != (float(timestep["cont"]) == 0.0):
        raise ContractError("cont must be 0 exactly where is_terminal is true")
    if timestep["is_terminal"] and not timestep["is_last"]:
        raise ContractError("a timestep that is terminal must also be the last")
