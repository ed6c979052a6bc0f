"""The background thread is bounded, keeps the order, passes errors on, and ends."""

from __future__ import annotations

import gc
import threading

import pytest

from dreamer.data.prefetch import prefetched


def prefetch_threads() -> int:
    gc.collect()
    return sum(thread.name.startswith("prefetch") for thread in threading.enumerate())


def test_prefetch_is_bounded_and_ends_when_closed() -> None:
    made = threading.Semaphore(0)

    def make(index: int) -> int:
        made.release()
        return index * 10

    items = prefetched(make, range(100), depth=3)
    assert next(items) == 0
    for _ in range(5):  # the first, three in the queue, and one in the making
        assert made.acquire(timeout=60)
    assert not made.acquire(timeout=0.05)
    items.close()
    assert prefetch_threads() == 0 and list(items) == []


def test_prefetch_ends_when_it_is_dropped() -> None:
    items = prefetched(lambda index: index, range(100), depth=2)
    assert next(items) == 0 and prefetch_threads() == 1
    del items
    assert prefetch_threads() == 0


def test_prefetch_raises_errors_where_the_item_would_have_come() -> None:
    def make(index: int) -> int:
        if index == 2:
            raise RuntimeError("no third item")
        return index

    items = prefetched(make, range(5), depth=1)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(RuntimeError, match="no third item"):
        next(items)
    assert prefetch_threads() == 0 and list(items) == []
