"""The cache of unpacked episodes."""

from __future__ import annotations

import numpy as np

from dreamer.data.replay import ByteCache


def test_cache_holds_what_was_used_last_within_its_limit() -> None:
    cache = ByteCache(100)
    item = {"x": np.zeros(40, np.uint8)}
    for key in "ab":
        cache.put(key, item)
    assert cache.get("a") is item
    cache.put("c", item)
    assert cache.get("b") is None
    assert cache.get("a") is item
    cache.put("a", {"x": np.zeros(10, np.uint8)})
    assert cache.nbytes == 50
    cache.put("d", {"x": np.zeros(101, np.uint8)})
    assert cache.get("d") is None
    cache.drop("a")
    cache.drop("a")
    assert cache.nbytes == 40
