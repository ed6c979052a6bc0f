"""Spaces of Gymnasium, old gym and others, and their values in the forms that we use.

A space is known by the name of its class or by its fields, because old gym's classes are not
Gymnasium's, some packages have named tuples instead, and any of the libraries may be missing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from dreamer.envs.spec import Space, image_space, one_hot_space
from dreamer.envs.wrappers import resize
from dreamer.errors import ContractError, UserError

#: The least height and width of an image, in pixels. A smaller array is a grid of symbols, such as
#: MiniGrid's 7x7x3: enlarged to an image and divided by 255, its symbols would look alike.
LEAST_IMAGE = 16
#: The most channels of an image, such as 16 stacked frames in color.
MOST_CHANNELS = 48
#: A vector of at least this many numbers may be an image that was not recognised as one.
LARGE_VECTOR = LEAST_IMAGE * LEAST_IMAGE * 3
#: Kinds of spaces whose values have a code.
CODED = ("Box", "Discrete", "MultiDiscrete", "MultiBinary")
_KINDS = (*CODED, "Dict", "Tuple")
Path = tuple[Any, ...]  # the keys that lead to a part of a nested observation


def kind_of(space: Any) -> str:
    """Returns one of `_KINDS` or "text", else the name of the space's class."""
    if (dtype := getattr(space, "dtype", None)) is not None and np.dtype(dtype).kind == "U":
        return "text"  # Gymnasium's Text, or a package's own space (MiniGrid)
    names = [cls.__name__ for cls in type(space).__mro__]
    if known := next((name for name in names if name in _KINDS), None):
        return known
    inner = getattr(space, "spaces", space)
    for kind, fits in {
        "Dict": isinstance(inner, Mapping),
        "Tuple": inner is not space and isinstance(inner, list | tuple),
        "MultiDiscrete": hasattr(space, "nvec"),
        "Box": all(hasattr(space, field) for field in ("low", "high", "shape", "dtype")),
        "Discrete": hasattr(space, "n"),
    }.items():
        if fits:
            return kind
    return names[0]


def leaves(space: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yields the path and the space of each part of a Dict or Tuple space, nested or not."""
    if kind_of(space) not in ("Dict", "Tuple"):
        yield path, space
        return
    parts = getattr(space, "spaces", space)
    for key, part in parts.items() if isinstance(parts, Mapping) else enumerate(parts):
        yield from leaves(part, (*path, key))


def value_at(path: Path, value: Any) -> Any:
    """Returns the part of an observation at `path`; ContractError if there is none."""
    for depth, key in enumerate(path):
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError) as error:
            name = "/".join(map(str, path[: depth + 1]))
            raise ContractError(
                f"the observation space has a part {name!r}, but the observation lacks it"
            ) from error
    return value


def image_axes(space: Any, name: str, flatten: str) -> tuple[int, ...]:
    """Returns an image's axes: height, width, then the others; () if the space is no image.

    An image is a uint8 Box with two neighbouring axes of at least 16 pixels; the others are
    channels or stacked frames. Observations that match `flatten` are none.
    """
    if kind_of(space) != "Box" or space.dtype != np.uint8 or re.fullmatch(flatten, name):
        return ()
    return _image_axes(space.shape)


def _image_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    long = [axis for axis, size in enumerate(shape) if size >= LEAST_IMAGE]
    others = [axis for axis in range(len(shape)) if axis not in long]
    channels = math.prod(shape[axis] for axis in others)
    is_image = len(long) == 2 and long[1] - long[0] == 1 and channels <= MOST_CHANNELS
    return (*long, *others) if is_image else ()


def codec(name: str, space: Any, image_size: int, flatten: str) -> tuple[Space, Callable, str]:
    """Returns our space of an observation, the function that encodes its values, and a remark.

    The remark, "" for none, tells the user how the observation is changed. Raises UserError if the
    space is of a kind that has no code, or looks like images of an unknown form.
    """
    kind = kind_of(space)
    if kind in ("Discrete", "MultiDiscrete", "MultiBinary"):
        return *_one_hots(name, space, kind), ""
    if kind != "Box":
        raise UserError(
            f"observations of the space {space} are not supported: expected Box, Discrete, "
            "MultiDiscrete, MultiBinary, or a Dict or Tuple of them, or envs.state false, which "
            "leaves them out"
        )
    if axes := image_axes(space, name, flatten):
        return _image_codec(name, space.shape, axes, image_size)
    if not re.fullmatch(flatten, name):
        _check_no_image(name, space)
    return _vector_codec(name, space)


def _image_codec(
    name: str, shape: tuple[int, ...], axes: tuple[int, ...], size: int
) -> tuple[Space, Callable, str]:
    height, width = (shape[axis] for axis in axes[:2])
    channels = math.prod(shape) // (height * width)

    def encode(value: np.ndarray) -> np.ndarray:
        if value.dtype != np.uint8 or value.ndim != len(shape):
            raise ContractError(
                f"{name}: expected uint8 {list(shape)}, got {value.dtype} {list(value.shape)}"
            )
        image = value.transpose(axes)
        return resize(image.reshape(*image.shape[:2], -1), size)

    space = image_space(size, 3 if channels == 1 else channels)
    return space, encode, resize_remark(name, height, width, size)


def _check_no_image(name: str, space: Any) -> None:
    """Raises UserError for images of an unknown form.

    They are no vectors: these would be huge, and in units of their own.
    """
    shape = tuple(space.shape)
    channels = min((shape[axis] for axis in _image_axes(shape)[2:]), default=math.inf)
    is_volume = space.dtype == np.uint8 and len(shape) > 2 and sorted(shape)[-2] >= LEAST_IMAGE
    if channels <= 4 or is_volume:
        raise UserError(
            f"observation {name!r} looks like images, {np.dtype(space.dtype)} {list(shape)}; "
            "expected uint8 [height, width, channels] or [channels, height, width], frames stacked "
            "or not: wrap the environment; or set envs.flatten to the observation's name, which "
            "observes its numbers as a vector; or set envs.state to false, which leaves it out"
        )


def _vector_codec(name: str, space: Any) -> tuple[Space, Callable, str]:
    shape, size = tuple(space.shape), math.prod(space.shape)
    remark = "" if size < LARGE_VECTOR else (
        f"observation {name!r}, {np.dtype(space.dtype)} {list(shape)}, is taken for a vector of "
        f"{size:,} numbers, not for an image"
    )  # fmt: skip
    bounds = (np.broadcast_to(bound, shape).reshape(-1) for bound in (space.low, space.high))
    low, high = (bound.astype(np.float64) for bound in bounds)
    # Raw bytes, such as a console's memory, are no quantities in units of their own.
    if space.dtype == np.uint8 and len(shape) == 1 and np.all(low == 0) and np.all(high == 255):
        ours = Space(shape, np.dtype(np.float32), -0.5, 0.5)
        return ours, lambda value: value.astype(np.float32) / 255.0 - 0.5, remark

    def flat(value: np.ndarray) -> np.ndarray:
        if value.dtype.kind == "O" and all(hasattr(one, "__float__") for one in value.flat):
            value = value.astype(np.float32)  # numbers of several types, such as a pandas row's
        if value.dtype.kind not in "biuf":
            raise ContractError(f"{name}: expected {list(shape)} numbers, got {str(value)[:80]}")
        return value.astype(np.float32).reshape(-1)

    return Space(low.shape, np.dtype(np.float32), low, high), flat, remark


def resize_remark(name: str, height: int, width: int, size: int) -> str:
    """Returns what resizing an image does to it; "" if it has the size already."""
    squeezed = "" if height == width else ", which changes its proportions"
    remark = f"image {name!r} of {height}x{width} pixels is resized to {size}x{size}{squeezed}"
    return "" if (height, width) == (size, size) else remark


def _one_hots(name: str, space: Any, kind: str) -> tuple[Space, Callable]:
    """Returns the space and the encoder of whole numbers, each a one-hot vector; or of bits."""
    if kind == "MultiBinary":
        ours = Space((len(_whole_numbers(space, kind)[1]),), np.dtype(np.float32), 0.0, 1.0)
        return ours, lambda value: value.astype(np.float32).reshape(-1)
    sizes = np.array(_whole_numbers(space, kind)[1])
    first: Any = getattr(space, "start", 0)
    start = np.reshape(first, -1)
    offsets = np.cumsum(sizes) - sizes

    def encode(value: np.ndarray) -> np.ndarray:
        numbers = value.reshape(-1).astype(int) - start
        if numbers.shape != sizes.shape or np.any((numbers < 0) | (numbers >= sizes)):
            raise ContractError(f"{name}: expected a value of {space}, got {value}")
        code = np.zeros(sizes.sum(), np.float32)
        code[offsets + numbers] = 1.0
        return code

    if kind == "Discrete":
        return one_hot_space(int(sizes[0])), encode
    return Space((int(sizes.sum()),), np.dtype(np.float32), 0.0, 1.0), encode


def action_space(space: Any) -> tuple[Space, Callable]:
    """Returns our space of actions, and the function that turns an action into the space's own.

    Discrete: one-hot [A]. MultiDiscrete and MultiBinary: a one-hot vector for each number, in a
    row. Box: its own space. UserError for other spaces.
    """
    kind = kind_of(space)
    if kind == "Box":
        if math.prod(space.shape) == 0:
            raise UserError(f"actions of the space {space} have no numbers: expected at least one")
        return Space(space.shape, space.dtype, space.low, space.high), lambda action: action
    if kind not in CODED:
        raise UserError(
            f"actions of the space {space} are not supported: expected Box, Discrete, "
            "MultiDiscrete or MultiBinary. Wrap the environment in a gymnasium.ActionWrapper whose "
            "action_space is one of these, and whose action() makes the environment's own action"
        )
    shape, sizes = _whole_numbers(space, kind)
    first: Any = getattr(space, "start", 0)
    dtype = np.dtype(getattr(space, "dtype", None) or np.int64)
    ends = np.cumsum(sizes)[:-1]

    def decode(action: np.ndarray) -> Any:
        numbers = [part.argmax() for part in np.split(action, ends)]
        if kind == "Discrete":
            return int(numbers[0]) + int(first)
        return (np.reshape(numbers, shape) + first).astype(dtype)

    return one_hot_space(*sizes), decode


def _whole_numbers(space: Any, kind: str) -> tuple[tuple[int, ...], list[int]]:
    """Returns the shape of an array of whole numbers, and how many values each can have."""
    if kind == "MultiBinary":
        shape = np.zeros(space.n).shape
        return shape, [2] * math.prod(shape)
    sizes = np.asarray(space.n if kind == "Discrete" else space.nvec, int)
    if sizes.size == 0 or sizes.min() < 1:
        raise UserError(f"the space {space} has no values: expected at least one of each number")
    return sizes.shape, sizes.reshape(-1).tolist()


def to_numpy(value: Any, name: str = "value") -> np.ndarray:
    """Returns an array of NumPy's, from any library's; ContractError if its rows differ."""
    if hasattr(value, "detach"):  # PyTorch's, perhaps with a gradient or on another device
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ContractError(
            f"{name}: expected an array of numbers, got parts of several shapes: {str(value)[:80]}"
        ) from error


def scalar(value: Any, name: str) -> float:
    """Returns the one number that `value` is or holds; ContractError if it holds no or several.

    Python's and NumPy's numbers and arrays or lists of one element are taken, and PyTorch's.
    """
    try:
        array = to_numpy(value)
        if array.size == 1 and array.dtype.kind in "biufO" and not np.ma.is_masked(value):
            return float(array.item())
        got = f"{type(value).__name__} of shape {array.shape}, {array.dtype}"
    except (TypeError, ValueError):
        got = repr(value)[:80]
    several = isinstance(value, list | tuple) or getattr(value, "ndim", 0) > 0
    hint = "; expected one environment, not several in one" if several else ""
    raise ContractError(f"{name}: expected one number, got {got}{hint}")


def flag(value: Any, name: str) -> bool:
    """Returns the truth of a flag, true or false, in any form that `scalar` takes; None: false."""
    return type(value) is bool and value or (value is not None and scalar(value, name) != 0)
