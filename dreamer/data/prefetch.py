"""Items prepared ahead of their consumer, by one background thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


class Prefetcher(Iterator[T]):
    """Iterates over ``make(index) for index in indices``, made ahead by a background thread.

    An error in `make` is raised in the consumer, in place of the item. Closing or dropping the
    iterator ends the thread.

    Args:
        make: Makes an item; called in the thread, in order.
        indices: The arguments of `make`.
        depth: Largest number of items that wait; one more may be in the making.
    """

    def __init__(self, make: Callable[[int], T], indices: Iterable[int], depth: int) -> None:
        self._make, self._indices = make, iter(indices)
        self._pool = ThreadPoolExecutor(1, "prefetch")
        self._items: deque[Future[T]] = deque()
        self._submit(max(depth, 1) + 1)

    def __next__(self) -> T:
        if not self._items:
            self.close()
            raise StopIteration
        try:
            item = self._items.popleft().result()
        except BaseException:
            self.close()
            raise
        self._submit(1)
        return item

    def __del__(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Ends the thread and waits for it. The iteration then yields nothing more."""
        self._items.clear()
        self._pool.shutdown(cancel_futures=True)

    def _submit(self, count: int) -> None:
        for index in islice(self._indices, count):
            self._items.append(self._pool.submit(self._make, index))
