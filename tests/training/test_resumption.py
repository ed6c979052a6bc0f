"""What a checkpoint says about collecting, and what it brings back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_collection import Run, contents

from dreamer.envs.processes.pool import EnvPool
from dreamer.training.resumption import pack, unpack


def test_the_game_goes_on_where_a_lost_life_left_it(tmp_path: Path):
    """Episodes are lives: the worker of an exact run that is resumed plays the lives before again,
    also where the checkpoint lies between two lives."""
    task, settings = "atari_riverraid", {"training": True, "image": False, "state": True}
    with EnvPool(task, 1, 120.0, **settings) as pool:
        first = Run(pool, tmp_path / "run", tmp_path / "episodes", exact=True)
        while not pool.goes_on[0]:
            first.collect(1)
        state = first.state()
        first.collect(200)
        end, stored = first.state(), contents(tmp_path / "episodes")
    assert state["collector"]["under_way"] == [None] and len(state["collector"]["games"][0]) == 1
    for path in (tmp_path / "episodes").glob("*.npz"):
        if path.name not in state["members"]:
            path.unlink()
    with EnvPool(task, 1, 120.0, **settings) as pool:
        second = Run(pool, tmp_path / "run", tmp_path / "episodes", exact=True)
        second.collection.resume(state)
        assert second.state() == state and not second.messages
        second.collect(200)
        assert second.state() == end and contents(tmp_path / "episodes") == stored
    assert end["collector"]["under_way"][0]["steps"] == 200  # of the game's second life


@pytest.mark.parametrize("array", [
    np.zeros((0, 3), np.float32), np.float32([[np.nan, -0.0, 1e-45]]), np.arange(3, dtype=">i8"),
    np.array(True),
], ids=str)  # fmt: skip
def test_arrays_survive_json_exactly(array: np.ndarray):
    again = unpack(json.loads(json.dumps(pack(array))))
    assert (again.dtype, again.shape) == (array.dtype, array.shape)
    assert again.tobytes() == array.tobytes()


@pytest.mark.parametrize("wrong", [
    {"dtype": "O"}, {"dtype": "no"}, {"shape": [1 << 60]}, {"shape": [-1, 7]}, {"data": "?"},
    {"data": 3},
])  # fmt: skip
def test_forged_arrays_are_refused(wrong: dict[str, Any]):
    packed = {**pack(np.zeros(3, np.float32)), **wrong}
    with pytest.raises((TypeError, ValueError)):
        unpack(packed)
