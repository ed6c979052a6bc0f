"""A cache of episodes in memory, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping

import numpy as np

Arrays = Mapping[str, np.ndarray]


class ByteCache:
    """Named arrays under keys, up to a number of bytes; the least recently used leave first.

    Args:
        limit: Bytes of all arrays held together. What alone exceeds it is not kept.

    Attributes:
        nbytes: Bytes held now.
    """

    def __init__(self, limit: int) -> None:
        self.nbytes = 0
        self._limit = limit
        self._items: OrderedDict[Hashable, Arrays] = OrderedDict()

    def get(self, key: Hashable) -> Arrays | None:
        """Returns what is held under `key`, or None."""
        if key in self._items:
            self._items.move_to_end(key)
        return self._items.get(key)

    def put(self, key: Hashable, item: Arrays) -> None:
        """Holds `item`, in place of what `key` held, and drops others where it needs the room."""
        self.drop(key)
        if _nbytes(item) > self._limit:
            return
        self._items[key] = item
        self.nbytes += _nbytes(item)
        while self.nbytes > self._limit:
            self.nbytes -= _nbytes(self._items.popitem(last=False)[1])

    def drop(self, key: Hashable) -> None:
        """Forgets `key`, if it is held."""
        self.nbytes -= _nbytes(self._items.pop(key, {}))


def _nbytes(item: Arrays) -> int:
    return sum(array.nbytes for array in item.values())
