"""What one record of an environment's episodes holds: shape and dtype of every key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from dreamer.episode_file import FLAGS

if TYPE_CHECKING:
    from dreamer.envs.spec import Space

Layout = Mapping[str, tuple[tuple[int, ...], np.dtype]]


def layout_of(obs_space: Mapping[str, Space], act_space: Space) -> Layout:
    """The layout that an environment's spaces ask for."""
    scalars = {"reward": np.float32, "cont": np.float32, **dict.fromkeys(FLAGS, np.bool_)}
    return {
        **{key: (space.shape, np.dtype(space.dtype)) for key, space in obs_space.items()},
        "action": (act_space.shape, np.dtype(np.float32)),
        **{key: ((), np.dtype(dtype)) for key, dtype in scalars.items()},
    }


def mismatch(layout: Layout, found: Layout) -> str:
    """Returns how an episode's records differ from the layout, or ""; floats may vary in size."""
    for key, (shape, dtype) in layout.items():
        if key not in found:
            return f"it lacks the environment's {key}"
        its_shape, its = found[key]
        if its_shape != shape or (its != dtype and not its.kind == dtype.kind == "f"):
            return f"{key} is {its} {its_shape}, the environment's {dtype} {shape}"
    return ""


def record_bytes(layout: Layout) -> int:
    """Bytes of one record."""
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in layout.values())
