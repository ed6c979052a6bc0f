"""Arrays that several processes read and write at once.

They lie in an anonymous file in memory (memfd, Linux) that a child inherits by its descriptor. The
file has no name that could be left behind, and ends with the last process that holds it. No pickle.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Mapping

import numpy as np

Layout = Mapping[str, tuple[str, list[int]]]  # name -> dtype, shape
_ALIGNMENT = 64


class SharedArrays:
    """Named arrays in memory that other processes may map too.

    Aligned numbers of 4 and 8 bytes are read and written whole. Nothing else is promised: if two
    processes add to one element, an addition may be lost.

    Args:
        layout: Name -> dtype and shape; the same in every process.
        descriptor: Of memory that another process has made; None: new memory, all zeros.

    Attributes:
        descriptor: For a child to inherit (`pass_fds`).
    """

    def __init__(self, layout: Layout, descriptor: int | None = None):
        places, size = {}, 0
        for name, (dtype, shape) in layout.items():
            places[name] = size
            needed = math.prod(shape) * np.dtype(dtype).itemsize
            size += -(-max(needed, 1) // _ALIGNMENT) * _ALIGNMENT
        if descriptor is None:
            descriptor = os.memfd_create("dreamer-baselines")
            os.ftruncate(descriptor, size)
        self.descriptor = descriptor
        memory = mmap.mmap(descriptor, size)
        self._arrays = {
            name: np.frombuffer(memory, dtype, math.prod(shape), places[name]).reshape(shape)
            for name, (dtype, shape) in layout.items()
        }

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]
