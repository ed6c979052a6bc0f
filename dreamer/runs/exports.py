"""Exported agents: runs without what only training needs, and those that come with dreamer.

An exported folder is laid out like a run's directory, so whatever takes a run takes it. Its only
checkpoint lacks optimizers and slow copies, and its large arrays have half precision. Its
config.yaml says `exported`. ``pretrained:NAME`` stands for the folder of that name in
baselines/pretrained/.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

import dreamer
from dreamer.errors import UserError, suggest
from dreamer.runs.checkpoints import Arrays, Checkpoint

PREFIX = "pretrained:"
MARK = "exported"
"""The key of config.yaml, and of the checkpoint's state, that only exported folders have."""


def resolve_run(run: str | os.PathLike[str]) -> Path:
    """Returns the folder that a program's --run names: a path, or ``pretrained:NAME``.

    Raises UserError if there is no such pretrained agent.
    """
    text = os.fspath(run)
    if not text.startswith(PREFIX):
        return Path(text).expanduser()
    name, known = text.removeprefix(PREFIX), pretrained()
    if name not in known:
        listed = "; there are " + (", ".join(PREFIX + each for each in known) or "none")
        near = suggest(name, known, prefix=PREFIX) or listed
        raise UserError(f"no pretrained agent {name!r}{near}")
    return known[name]


def pretrained() -> dict[str, Path]:
    """Returns the folders of the agents that come with dreamer, by name.

    An installed wheel has them inside the package; in a checkout they are in baselines/.
    """
    package = Path(dreamer.__file__).resolve().parent
    places = package / "pretrained", package.parent / "baselines" / "pretrained"
    place = next(filter(os.path.isdir, places), None)
    found = sorted(place.iterdir()) if place else []
    return {path.name: path for path in found if (path / "config.yaml").is_file()}


def halved(arrays: Arrays) -> dict[str, np.ndarray]:
    """Returns the arrays, with matrices in half precision if float16 can hold their values.

    Vectors and numbers, such as the statistics of observations, stay as they are: they are small.
    """
    largest = np.finfo(np.float16).max
    return {
        name: array.astype(np.float16)
        if array.ndim > 1 and array.dtype.kind == "f" and np.all(np.abs(array) <= largest)
        else array
        for name, array in arrays.items()
    }


def acting_arrays(agent: Any) -> dict[str, np.ndarray]:
    """Returns the arrays that acting and dreaming need; an agent without such a list gives all."""
    return getattr(agent, "acting_arrays", agent.state_arrays)()


def arrays_for(agent: Any, found: Checkpoint, own: Arrays) -> Arrays:
    """Returns a checkpoint's arrays for an agent; an exported one's are completed by its `own`.

    Raises ValueError if an exported checkpoint lacks arrays, or has others.
    """
    if not found.state.get(MARK):
        return found.arrays
    if differing := set(acting_arrays(agent)) ^ set(found.arrays):
        raise ValueError(f"the arrays are not this agent's; differing: {sorted(differing)[:5]}")
    return {**own, **{name: a.astype(own[name].dtype) for name, a in found.arrays.items()}}
