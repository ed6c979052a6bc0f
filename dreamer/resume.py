"""What a checkpoint says about collecting, as JSON, and what it makes of the episodes on disk."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dreamer.collect import Collector
from dreamer.under_way import UnderWay

_KINDS = "biuf"  # NumPy's kinds of numbers that are stored here


def collector_state(collector: Collector, whole: bool) -> dict[str, Any]:
    """A collector's state as JSON.

    Args:
        collector: Whose.
        whole: Whether the policy's state and the actions of episodes under way belong to it, which
            an exact resumption needs; else only which episodes these are and how long so far.
    """
    episodes = collector.under_way()
    lengths = [e and {"number": e.number, "steps": len(e.actions) - 1} for e in episodes]
    state: dict[str, Any] = {"under_way": lengths}
    if not whole:
        return state
    exact = [e and _how(e) for e in episodes]
    policy = collector.state
    packed = None if policy is None else {k: pack(np.asarray(v)) for k, v in policy.items()}
    games = [[{"number": e.number, **_how(e)} for e in game] for game in collector.games()]
    return {**state, "exact": exact, "games": games, "policy": packed}


def is_whole(state: Mapping[str, Any]) -> bool:
    """Whether `collector_state` gave that state whole."""
    return all(key in state for key in ("exact", "games", "policy"))


def restore_collector(
    collector: Collector, state: Mapping[str, Any], check: Callable[[], None]
) -> list[int]:
    """Puts back what `collector_state` gave whole, as `Collector.restore` does.

    Raises:
        KeyError, TypeError, ValueError: it was not given whole, or not by us.
    """
    episodes = [
        where and _under_way(where["number"], how)
        for where, how in zip(state["under_way"], state["exact"], strict=True)
    ]
    games = [[_under_way(e["number"], e) for e in game] for game in state["games"]]
    policy = state["policy"]
    policy = policy and {k: unpack(v) for k, v in policy.items()}
    return collector.restore(episodes, games, policy, check)


def steps_since(state: Mapping[str, Any], own: Mapping[str, tuple[int, int]]) -> int:
    """Agent steps that were collected after a checkpoint and are on disk.

    Args:
        state: Of the checkpoint: its members and the episodes that were under way.
        own: File name -> (number, agent steps) of the run's own episodes on disk.
    """
    members = set(state["members"])
    begun = {e["number"]: e["steps"] for e in state["collector"]["under_way"] if e}
    later = [at for name, at in own.items() if name not in members]
    return sum(steps - begun.get(number, 0) for number, steps in later)


def _how(episode: UnderWay) -> dict[str, Any]:
    return {"actions": pack(episode.actions), "digest": episode.digest}


def _under_way(number: Any, how: Mapping[str, Any]) -> UnderWay:
    return UnderWay(int(number), unpack(how["actions"]), int(how["digest"]))


def pack(array: np.ndarray) -> dict[str, Any]:
    """An array of numbers as JSON, exactly."""
    raw = np.ascontiguousarray(array).tobytes()
    return {
        "dtype": array.dtype.str, "shape": list(array.shape),
        "data": base64.b64encode(raw).decode("ascii"),
    }  # fmt: skip


def unpack(packed: Mapping[str, Any]) -> np.ndarray:
    """The array that was packed.

    Raises:
        KeyError, TypeError, ValueError: it is not what `pack` gives.
    """
    dtype = np.dtype(packed["dtype"])
    if dtype.kind not in _KINDS:
        raise ValueError(f"it holds {dtype}, expected numbers")
    raw = base64.b64decode(packed["data"], validate=True)
    return np.frombuffer(raw, dtype).reshape(packed["shape"]).copy()
