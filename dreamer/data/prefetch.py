"""Items prepared ahead of their consumer, by one background thread with a bounded queue."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Iterates over ``make(index) for index in indices``, made ahead by a background thread.

    An error in `make` is raised in the consumer, in place of the item. Closing the iterator,
    leaving its ``with`` block, or dropping it ends the thread.

    Args:
        make: Makes an item; called in the thread, in order.
        indices: The arguments of `make`.
        depth: Largest number of items in the queue; one more may be in the making.
    """

    def __init__(self, make: Callable[[int], T], indices: Iterable[int], depth: int) -> None:
        self._queue: queue.Queue[T | _End] = queue.Queue(max(depth, 1))  # 0 would mean no bound
        self._stop = threading.Event()
        # The thread does not reference this object, which can therefore be dropped meanwhile.
        self._thread = threading.Thread(
            target=_produce, args=(make, indices, self._queue, self._stop),
            name="prefetch", daemon=True,
        )  # fmt: skip
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._stop.is_set():
            raise StopIteration
        item = self._queue.get()
        if isinstance(item, _End):
            self.close()
            raise item.error or StopIteration
        return item

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def __del__(self) -> None:
        self._stop.set()
        _drain(self._queue)

    def close(self) -> None:
        """Ends the thread and waits for it. The iteration then yields nothing more."""
        self._stop.set()
        while self._thread.is_alive():
            _drain(self._queue)
            self._thread.join(0.01)


class _End:
    """The last entry of the queue, with the error that ended the thread, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def _produce(
    make: Callable[[int], T], indices: Iterable[int], items: queue.Queue[T | _End],
    stop: threading.Event,
) -> None:  # fmt: skip
    error: BaseException | None = None
    try:
        for index in indices:
            if stop.is_set():
                return
            items.put(make(index))
    except BaseException as caught:  # any error belongs to the consumer
        error = caught
    items.put(_End(error))


def _drain(items: queue.Queue[T | _End]) -> None:
    """Empties the queue, so that a thread that waits to add an item continues."""
    try:
        while True:
            items.get_nowait()
    except queue.Empty:
        return
