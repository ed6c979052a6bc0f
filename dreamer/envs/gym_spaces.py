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
    """Returns "image", "Box", "Discrete", "Dict" or "text", else the name of the space's class.

    Compares names, because old gym's classes are not Gymnasium's, and either may be missing.
    """
    if (dtype := getattr(space, "dtype", None)) is not None and np.dtype(dtype).kind == "U":
        return "text"  # Gymnasium's Text, or a package's own space (MiniGrid)
    names = [cls.__name__ for cls in type(space).__mro__]
    kind = next((name for name in names if name in ("Box", "Discrete", "Dict")), names[0])
    is_image = kind == "Box" and space.dtype == np.uint8 and _image_axes(space.shape)
    return "image" if is_image else kind


def _image_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the axes of height, width and channels in an image; () if it is none."""
    if len(shape) == 3 and shape[2] not in (1, 3):
        return (1, 2, 0) if shape[0] in (1, 3) and min(shape[1:]) >= LEAST_IMAGE else ()
    is_image = len(shape) in (2, 3) and min(shape[:2]) >= LEAST_IMAGE
    return tuple(range(len(shape))) if is_image else ()


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
        self._single = {"Dict": "", "image": IMAGE}.get(kind_of(space), VECTOR)
        self.has_image = settings.image and has_image(space)
        self.left_out: list[str] = []
        self.spaces: dict[str, Space] = {}
        self._encoders: dict[str, tuple[str, Callable]] = {}
        for name, part in _flatten(space, self._single):
            kind = kind_of(part)
            if kind not in ("image", "Box", "Discrete"):
                if settings.state and kind != "text":
                    raise UserError(
                        f"observations of the space {part} are not supported: expected Box, "
                        "Discrete or a Dict of them, or envs.state false, which leaves them out"
                    )
                self.left_out.append(name)
                continue
            if not (settings.image if kind == "image" else settings.state):
                continue
            if name in SCALARS or name in ("action", "discount"):
                raise UserError(
                    f"an observation is named {name!r}, a timestep's own key: rename it"
                )
            # Only an image may have the key "image".
            key = f"{name}_vector" if name == IMAGE and kind != "image" else name
            self.spaces[key], encode = _codec(name, part, settings.image_size)
            self._encoders[name] = key, encode

    def encode(self, obs: Any) -> dict[str, np.ndarray]:
        """Returns the arrays of one observation."""
        values = dict(_flatten(obs, self._single))
        return {
            key: encode(np.asarray(values[name])) for name, (key, encode) in self._encoders.items()
        }


def _codec(name: str, space: Any, image_size: int) -> tuple[Space, Callable]:
    """Returns our space of an observation, and the function that encodes its values."""
    kind, shape = kind_of(space), space.shape
    if kind == "Discrete":
        one_hot, start = np.eye(int(space.n), dtype=np.float32), int(getattr(space, "start", 0))
        return one_hot_space(int(space.n)), lambda value: one_hot[int(value) - start].copy()
    if kind == "image":
        axes = _image_axes(shape)
        return image_space(image_size), lambda value: resize(value.transpose(axes), image_size)
    # As a vector, an image of an unknown form would be huge and in units of its own.
    sides = sorted(shape) if len(shape) == 3 else [0, 0]
    if sides[1] >= LEAST_IMAGE and (space.dtype == np.uint8 or sides[0] <= 4):
        raise UserError(
            f"observation {name!r} looks like images, {np.dtype(space.dtype)} {list(shape)}; "
            "expected uint8 [height, width, channels] or [channels, height, width] of 1 or 3 "
            "channels: wrap the environment, or set envs.state to false to leave it out"
        )
    low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (space.low, space.high))
    # Raw bytes, such as a console's memory, are no quantities in units of their own.
    if space.dtype == np.uint8 and len(shape) == 1 and np.all(low == 0) and np.all(high == 255):
        ours = Space(shape, np.dtype(np.float32), -0.5, 0.5)
        return ours, lambda value: value.astype(np.float32) / 255.0 - 0.5
    ours = Space(low.shape, np.dtype(np.float32), low, high)
    return ours, lambda value: value.astype(np.float32).reshape(-1)


def action_space(space: Any) -> Space:
    """Returns one-hot [A] for a Discrete space, and a Box's own shape and bounds.

    Raises:
        UserError: The space is of another kind.
    """
    if kind_of(space) == "Discrete":
        return one_hot_space(int(space.n))
    if kind_of(space) == "Box":
        return Space(space.shape, space.dtype, space.low, space.high)
    raise UserError(
        f"actions of the space {space} are not supported: expected a Box or a Discrete space"
    )


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes an image, uint8 [h, w], [h, w, 1] or [h, w, 3], to uint8 [size, size, 3].

    Each new pixel is the mean over the area that it covers.
    """
    image = image if image.ndim == 3 else image[:, :, None]
    image = np.broadcast_to(image, (*image.shape[:2], 3))
    if image.shape[:2] == (size, size):
        return np.array(image)
    from PIL import Image

    whole = Image.fromarray(np.ascontiguousarray(image))
    return np.array(whole.resize((size, size), Image.Resampling.BOX))


def has_image(space: Any) -> bool:
    """Whether an image is among the observations of `space`."""
    return any(kind_of(part) == "image" for _, part in _flatten(space, ""))


def _flatten(space: Any, prefix: str) -> list[tuple[str, Any]]:
    """Returns the names and values of a Dict space or of a dict, nested or not."""
    parts = getattr(space, "spaces", space)
    if not isinstance(parts, Mapping):
        return [(prefix, space)]
    return [
        item
        for key, part in parts.items()
        for item in _flatten(part, f"{prefix}/{key}" if prefix else str(key))
    ]
