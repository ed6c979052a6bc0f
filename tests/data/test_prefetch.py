"""The background thread is bounded, keeps the order, passes errors on, and ends."""

from __future__ import annotations

import gc
import threading

import pytest

from dreamer.data.prefetch import Prefetcher


def prefetch_threads() -> int:
    gc.collect()
    return sum(thread.name.startswith("prefetch") for thread in threading.enumerate())


def test_prefetch_is_bounded_and_ends_when_closed() -> None:
    made = threading.Semaphore(0)
    count = 0

    def make(index: int) -> int:
        nonlocal count
        count += 1
        made.release()
        return index * 10

    items = Prefetcher(make, range(100), depth=3)
    for _ in range(4):  # three in the queue, and one in the making
        assert made.acquire(timeout=60)
    assert next(items) == 0
    assert made.acquire(timeout=60)
    assert not made.acquire(timeout=0.05)
    assert count == 5
    items.close()
    assert prefetch_threads() == 0
    assert list(items) == []


def test_prefetch_ends_when_it_is_dropped() -> None:
    items = Prefetcher(lambda index: index, range(100), depth=2)
    assert next(items) == 0
    (thread,) = items._pool._threads
    del items
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


def test_prefetch_raises_errors_where_the_item_would_have_come() -> None:
    def make(index: int) -> int:
        if index == 2:
            raise RuntimeError("no third item")
        return index

    items = Prefetcher(make, range(5), depth=1)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(RuntimeError, match="no third item"):
        next(items)
    assert list(items) == []
    assert prefetch_threads() == 0
