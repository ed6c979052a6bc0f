"""The contract of every environment: its settings, its spaces, and what a step returns.

Timestep t of an episode holds the observation at t, the reward received on arriving there, and the
episode's flags. The collector, not the environment, adds the action that led to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from dreamer.errors import ContractError, UserError

Timestep = dict[str, np.ndarray]

#: Keys of a timestep besides its observations: name -> dtype. All have shape [].
SCALARS = {
    "reward": np.dtype(np.float32), "cont": np.dtype(np.float32),
    "is_first": np.dtype(bool), "is_last": np.dtype(bool), "is_terminal": np.dtype(bool),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EnvSettings:
    """How to make an environment of any suite. A suite ignores the settings it has no use for.

    Attributes:
        action_repeat: Frames that each action is held.
        time_limit: Frames of an episode; 0: the task's own limit.
        image: Whether to observe images.
        state: Whether to observe the task's vectors.
        image_size: Pixels along each edge of an image.
        camera: Index of the camera; -1: the task's usual one (DeepMind Control).
        shadow_size: Texels along each edge of the shadow map; 0: the simulator's own 2048. A
            smaller map renders faster in software, and changes pixels (DeepMind Control).
        egl_device: Index of the GPU that renders; -1: the driver's choice.
        flatten: Pattern of names: observations that match it whole are vectors, also if they look
            like images (Gymnasium and your own environments).
        arguments: JSON, the arguments of the function that makes an environment (Gymnasium's,
            and your own).
        index: Number of the environment among those of its pool.
        seed: The run's seed, from which makers that take a seed get one for each environment.
        training: Whether episodes serve learning, not a score: games end with a lost life (Atari).

    Raises:
        UserError: A number is too small.
    """

    action_repeat: int = 2
    time_limit: int = 0
    image: bool = True
    state: bool = False
    image_size: int = 64
    camera: int = -1
    shadow_size: int = 0
    egl_device: int = -1
    flatten: str = ""
    arguments: str = ""
    index: int = 0
    seed: int = 0
    training: bool = False

    def __post_init__(self) -> None:
        low = {"action_repeat": 1, "image_size": 1, "time_limit": 0, "shadow_size": 0, "camera": -1}
        for name, least in low.items():
            if (value := getattr(self, name)) < least:
                raise UserError(f"envs.{name} is {value}, expected at least {least}")
        self.keywords()

    def keywords(self) -> dict[str, Any]:
        """Returns `arguments` by name."""
        try:
            found = json.loads(self.arguments or "{}")
        except ValueError as error:
            found = error
        if not isinstance(found, dict):
            raise UserError(
                f"envs.arguments is {self.arguments!r}, expected arguments by name as JSON, such "
                'as \'{"size": 5, "level": "hard"}\''
            )
        return found


@dataclass(frozen=True, eq=False)
class Space:
    """Shape, dtype and bounds of one array.

    Attributes:
        shape: Shape of one value, without batch or time axes.
        dtype: NumPy dtype (anything `np.dtype` takes).
        low, high: Bounds: a float for all elements, or an array of `shape`. Infinite: no bound.
        discrete: Whether the value is a one-hot float32 vector [A], or several in a row.
        parts: Sizes of the one-hot vectors, if there are several.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    low: float | np.ndarray = -np.inf
    high: float | np.ndarray = np.inf
    discrete: bool = False
    parts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        object.__setattr__(self, "dtype", np.dtype(self.dtype))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Space):
            return NotImplemented
        fields = ("shape", "dtype", "discrete", "parts")
        same = all(getattr(self, field) == getattr(other, field) for field in fields)
        return same and np.array_equal(self.bounds(), other.bounds())

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the low and the high bound of each element, float64 arrays of `shape`."""
        low, high = np.asarray(self.low, np.float64), np.asarray(self.high, np.float64)
        return np.broadcast_to(low, self.shape), np.broadcast_to(high, self.shape)

    @property
    def is_image(self) -> bool:
        """Whether a value is an image: uint8 [height, width, channels]."""
        return self.dtype == np.uint8 and len(self.shape) == 3

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """Draws a value uniformly; unbounded elements come from [-1, 1]."""
        if self.discrete:
            sizes = self.parts or self.shape
            return np.concatenate([np.eye(n, dtype=self.dtype)[rng.integers(n)] for n in sizes])
        low, high = self.bounds()
        bounded = np.isfinite(low) & np.isfinite(high)
        low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
        if np.issubdtype(self.dtype, np.integer):
            return rng.integers(low, high, endpoint=True).astype(self.dtype)
        return rng.uniform(low, high).astype(self.dtype)

    def check(self, value: Any, name: str) -> None:
        """Raises ContractError if `value` has another shape or dtype, or is not finite."""
        if not isinstance(value, np.ndarray | np.generic):
            raise ContractError(f"{name}: expected a NumPy array, got {type(value).__name__}")
        if value.shape != self.shape:
            raise ContractError(f"{name}: expected shape {self.shape}, got {value.shape}")
        if value.dtype != self.dtype:
            raise ContractError(f"{name}: expected dtype {self.dtype}, got {value.dtype}")
        if self.dtype.kind == "f" and not np.all(np.isfinite(value)):
            raise ContractError(f"{name}: not finite: {value}")

    def to_json(self) -> list[Any]:
        """Describes this space with JSON types, for `from_json`."""
        bounds = [np.asarray(bound).tolist() for bound in (self.low, self.high)]
        return [self.shape, self.dtype.str, *bounds, self.discrete, self.parts]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> Space:
        shape, dtype, low, high, *kind = data
        return cls(shape, dtype, np.asarray(low), np.asarray(high), *kind)


def image_space(size: int, channels: int = 3) -> Space:
    """Returns the space of images: uint8 [size, size, channels]."""
    return Space((size, size, channels), np.dtype(np.uint8), 0, 255)


def one_hot_space(*sizes: int) -> Space:
    """Returns the space of one-hot actions or observations: float32 [size], or several in a row."""
    parts = sizes if len(sizes) > 1 else ()
    return Space((sum(sizes),), np.dtype(np.float32), 0.0, 1.0, discrete=True, parts=parts)


def spaces_to_json(obs_space: Mapping[str, Space], act_space: Space) -> dict[str, Any]:
    """Describes an environment's spaces with JSON types, under `obs_space` and `act_space`."""
    observed = {key: space.to_json() for key, space in obs_space.items()}
    return {"obs_space": observed, "act_space": act_space.to_json()}


def spaces_from_json(data: Mapping[str, Any]) -> tuple[dict[str, Space], Space]:
    """Returns the observation and action spaces that `spaces_to_json` described."""
    obs_space = {key: Space.from_json(space) for key, space in data["obs_space"].items()}
    return obs_space, Space.from_json(data["act_space"])


@runtime_checkable
class Env(Protocol):
    """One environment. `dreamer.envs.conformance.check_env` tests whether it keeps this contract.

    Attributes:
        obs_space: The space of each observation, by its key.
        act_space: float32 [A] in [-1, 1], or one-hot float32 [A] (`discrete`), or several one-hot
            vectors in a row.
        action_repeat: Frames of the environment in one step.
        info: Facts worth logging, such as the renderer's name. Lines under `notes` are for the user
            and are shown once; a reset may add some.
        goes_on: Optional. Whether the next episode continues from this one's end, whatever its
            seed; an Atari game does so after a lost life. False if absent.
    """

    obs_space: dict[str, Space]
    act_space: Space
    action_repeat: int
    info: dict[str, str]

    def reset(self, seed: int | None = None) -> Timestep:
        """Starts an episode and returns its first timestep (reward 0, cont 1, is_first).

        With a seed, the episode is a function of the seed and the actions alone. Without a seed,
        the environment's own random stream continues. (One exception: an Atari game that continues
        after a lost life, see `dreamer.envs.atari.Atari`.)
        """

    def step(self, action: np.ndarray) -> Timestep:
        """Applies `action` [A] for `action_repeat` frames and returns the timestep it leads to.

        `reward` is the sum over the frames. `is_last` ends the episode. `is_terminal`, with cont 0,
        is set only if the task itself ended: at a time limit a timestep is last but not terminal.
        """

    def close(self) -> None:
        """Frees the environment's resources; may be called twice."""


def make_timestep(
    obs: Mapping[str, np.ndarray], reward: float = 0.0, *,
    is_first: bool = False, is_last: bool = False, is_terminal: bool = False,
) -> Timestep:  # fmt: skip
    """Makes a timestep from its parts; `cont` is 1 unless `is_terminal`."""
    values = (reward, not is_terminal, is_first, is_last, is_terminal)
    scalars = zip(SCALARS.items(), values, strict=True)
    return {**obs, **{key: np.asarray(value, dtype) for (key, dtype), value in scalars}}


def check_timestep(timestep: Timestep, obs_space: Mapping[str, Space]) -> None:
    """Raises ContractError, which names the first mistake in `timestep`."""
    spaces = {**obs_space, **{key: Space((), dtype) for key, dtype in SCALARS.items()}}
    if timestep.keys() != spaces.keys():
        missing = sorted(spaces.keys() - timestep.keys())
        foreign = sorted(timestep.keys() - spaces.keys())
        raise ContractError(f"timestep: missing keys {missing}, unexpected keys {foreign}")
    for key, space in spaces.items():
        space.check(timestep[key], key)
    if bool(timestep["is_terminal"]) != (float(timestep["cont"]) == 0.0):
        raise ContractError("cont must be 0 exactly where is_terminal is true")
    if timestep["is_terminal"] and not timestep["is_last"]:
        raise ContractError("a timestep that is terminal must also be the last")
