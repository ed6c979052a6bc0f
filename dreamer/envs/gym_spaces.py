"""Gymnasium's (and old gym's) spaces in terms of ours, and their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dreamer.envs.spec import SCALARS, EnvSettings, Space, image_space, one_hot_space
from dreamer.errors import UserError

#: The key of an observation that is a single array.
VECTOR, IMAGE = "observation", "image"
#: The least height and width of an image, in pixels. A smaller array is a grid of symbols, such as
#: MiniGrid's 7x7x3: enlarged to an image and divided by 255, its symbols would look alike.
LEAST_IMAGE = 16


def kind_of(space: Any) -> str:
    """Returns "Box", "Discrete", "Dict", or the class's own name if the kind is unknown.

    Compares names, because old gym's classes are not Gymnasium's, and either may be missing.
    """
    names = [cls.__name__ for cls in type(space).__mro__]
    return next((name for name in names if name in ("Box", "Discrete", "Dict")), names[0])


class ObservationCodec:
    """Turns observations of a Box, Discrete or Dict space into our dictionaries of arrays.

    Images (uint8 [height, width, channels] or [channels, height, width] of 1 or 3 channels, or
    [height, width], both at least 16) become uint8 [image_size, image_size, 3]. Vectors of bytes
    (uint8 [n], 0 to 255) are scaled to [-0.5, 0.5]. Other boxes become flat float32 vectors.
    Discrete values become one-hot vectors. A single observation is named "image" or "observation".
    Nested names are joined by a slash. A vector named "image" is renamed to "image_vector". Texts
    are left out; without `state`, so are spaces of unknown kinds.

    Attributes:
        spaces: The space of each key.
        has_image: Whether an observation is an image.
        left_out: Names of the observations left out.

    Raises:
        UserError: With `state`, a space is of an unknown kind, or a vector looks like images of an
            unknown form; or an observation has the name of another entry of a timestep.
    """

    def __init__(self, space: Any, settings: EnvSettings):
        self._single = "" if kind_of(space) == "Dict" else IMAGE if _is_image(space) else VECTOR
        parts = _flatten(space, self._single)
        self.left_out = [name for name, part in parts if _is_left_out(part, settings.state)]
        self.has_image = settings.image and any(_is_image(part) for _, part in parts)
        self.spaces: dict[str, Space] = {}
        self._encoders: dict[str, tuple[str, tuple[int, ...] | None, Callable]] = {}
        for name, part in parts:
            if name in self.left_out or not (settings.image if _is_image(part) else settings.state):
                continue
            if name in SCALARS or name in ("action", "discount"):
                raise UserError(
                    f"an observation is named {name!r}, a timestep's own key: rename it"
                )
            # Only an image may have the key "image".
            key = f"{name}_vector" if name == IMAGE and not _is_image(part) else name
            self.spaces[key], encode = _codec(name, part, settings.image_size)
            shape = None if kind_of(part) == "Discrete" else tuple(part.shape)
            self._encoders[name] = key, shape, encode

    def encode(self, obs: Any) -> dict[str, np.ndarray]:
        """Returns the arrays of one observation."""
        values, encoded = dict(_flatten(obs, self._single)), {}
        for name, (key, shape, encode) in self._encoders.items():
            value = np.asarray(values[name])
            if shape is not None and value.shape != shape:
                raise ValueError(f"observation {name}: expected shape {shape}, got {value.shape}")
            encoded[key] = encode(value)
        return encoded


def _codec(name: str, space: Any, image_size: int) -> tuple[Space, Callable]:
    """Returns our space of an observation, and the function that encodes its values."""
    if kind_of(space) == "Discrete":
        one_hot, start = np.eye(int(space.n), dtype=np.float32), int(getattr(space, "start", 0))
        return one_hot_space(int(space.n)), lambda value: one_hot[int(value) - start].copy()
    if _is_image(space):
        axes = (1, 2, 0) if _channels_first(space) else tuple(range(len(space.shape)))
        return image_space(image_size), lambda value: resize(value.transpose(axes), image_size)
    _refuse_odd_image(name, space)
    if _is_bytes(space):
        ours = Space(space.shape, np.dtype(np.float32), -0.5, 0.5)
        return ours, lambda value: value.astype(np.float32) / 255.0 - 0.5
    low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (space.low, space.high))
    ours = Space(low.shape, np.dtype(np.float32), low, high)
    return ours, lambda value: value.astype(np.float32).reshape(-1)


class ActionCodec:
    """Turns our actions into those of a Box or Discrete space.

    Attributes:
        space: A Box's own bounds and shape (`NormalizeActions` maps to them), or one-hot [A].
    """

    def __init__(self, space: Any):
        kind = kind_of(space)
        self._start = int(space.start) if kind == "Discrete" and hasattr(space, "start") else 0
        if kind == "Discrete":
            self.space = one_hot_space(int(space.n))
        elif kind == "Box":
            self.space = Space(space.shape, space.dtype, space.low, space.high)
        else:
            raise UserError(
                f"actions of the space {space} are not supported: expected a Box or a Discrete "
                "space"
            )

    def decode(self, action: np.ndarray) -> Any:
        """Returns the action for the environment's own `step`."""
        self.space.check(action, "action")
        return int(np.argmax(action)) + self._start if self.space.discrete else action


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes an image, uint8 [h, w], [h, w, 1] or [h, w, 3], to uint8 [size, size, 3].

    Each new pixel is the mean over the area that it covers.
    """
    image = image if image.ndim == 3 else image[:, :, None]
    image = np.broadcast_to(image, (*image.shape[:2], 3))
    if image.shape[:2] == (size, size):
        return np.array(image)
    from PIL import Image

    small = Image.fromarray(np.ascontiguousarray(image)).resize(
        (size, size), Image.Resampling.BOX
    )
    return np.array(small)


def has_image(space: Any) -> bool:
    """Whether an image is among the observations of `space`."""
    return any(_is_image(part) for _, part in _flatten(space, ""))


def _is_image(space: Any) -> bool:
    if kind_of(space) != "Box" or space.dtype != np.uint8:
        return False
    shape = space.shape
    if len(shape) == 3 and shape[2] not in (1, 3):
        return _channels_first(space)
    return len(shape) in (2, 3) and min(shape[:2]) >= LEAST_IMAGE


def _channels_first(space: Any) -> bool:
    shape = space.shape
    return len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) >= LEAST_IMAGE


def _is_bytes(space: Any) -> bool:
    """Whether values are raw bytes, such as a console's memory, whose units are very small."""
    if kind_of(space) != "Box" or space.dtype != np.uint8 or len(space.shape) != 1:
        return False
    return bool(np.all(space.low == 0) and np.all(space.high == 255))


def _refuse_odd_image(key: str, space: Any) -> None:
    """Refuses observations that look like images of an unknown form: as vectors they would be huge
    and in units of their own."""
    if len(space.shape) != 3:
        return
    least, *sides = sorted(space.shape)
    if sides[0] >= LEAST_IMAGE and (space.dtype == np.uint8 or least <= 4):
        raise UserError(
            f"observation {key!r} looks like images, {np.dtype(space.dtype)} {list(space.shape)}; "
            "expected uint8 [height, width, channels] or [channels, height, width] of 1 or 3 "
            "channels: wrap the environment, or set envs.state to false to leave it out"
        )


def _is_text(space: Any) -> bool:
    """Whether values are texts: Gymnasium's Text, or a package's own space (MiniGrid)."""
    dtype = getattr(space, "dtype", None)
    return dtype is not None and np.dtype(dtype).kind == "U"


def _is_left_out(space: Any, state: bool) -> bool:
    """Whether values are texts, or of an unknown kind and not asked for."""
    if _is_text(space):
        return True
    if kind_of(space) in ("Box", "Discrete"):
        return False
    if state:
        raise UserError(
            f"observations of the space {space} are not supported: expected Box, Discrete or a "
            "Dict of them, or envs.state false, which leaves them out"
        )
    return True


def _flatten(space: Any, prefix: str) -> list[tuple[str, Any]]:
    """Returns the names and values of a Dict space or of a dict, nested or not."""
    parts = getattr(space, "spaces", None) if kind_of(space) == "Dict" else space
    if not isinstance(parts, Mapping):
        return [(prefix, space)]
    return [
        item
        for key, part in parts.items()
        for item in _flatten(part, f"{prefix}/{key}" if prefix else str(key))
    ]
