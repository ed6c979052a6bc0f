"""Items prepared ahead of their consumer, by one background thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def prefetched(
    make: Callable[[int], T], indices: Iterable[int], depth: int
) -> Generator[T, None, None]:
    """Yields ``make(index) for index in indices``, made ahead by a background thread.

    An error in `make` is raised in the consumer, in place of the item. Closing or dropping the
    generator ends the thread.

    Args:
        make: Makes an item; called in the thread, in order.
        indices: The arguments of `make`.
        depth: Largest number of items that wait; one more may be in the making.
    """
    rest = iter(indices)
    pool = ThreadPoolExecutor(1, "prefetch")
    try:
        items = deque(pool.submit(make, index) for index in islice(rest, max(depth, 1) + 1))
        while items:
            item = items.popleft().result()
            items.extend(pool.submit(make, index) for index in islice(rest, 1))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
