"""Checkpoints that are complete or absent, and verified before anything of them is used.

A checkpoint is the folder ``<step, 12 digits>/`` with

- ``arrays.npz``: named numeric arrays, uncompressed;
- ``state.json``: counters, random states and whatever else is small;
- ``manifest.json``: step, and size and SHA-256 of the other two; written last.

The folder is written under a temporary name, synced and renamed. Reading unpickles nothing, follows
no links and believes no size that the file itself does not bear out, so a checkpoint from a
stranger can be refused but can do no harm.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.checkpoint_files import KINDS, MOST, Checkpoint, DamagedError, read, write
from dreamer.errors import UserError
from dreamer.files import (
    atomic_folder,
    discard,
    make_folder,
    remove_temporaries,
    storage_errors,
)

__all__ = ["Checkpoint", "Checkpoints"]

_NAME = re.compile(r"(\d{12,})(\.old)?")
_SLACK = 1 << 26  # bytes beyond what an agent's arrays take
_LISTINGS = 5  # of a folder that another process keeps changing


class Checkpoints:
    """The newest few checkpoints of one run.

    Only one process may `save` into a folder at a time (`dreamer.rundir` sees to that); any
    number may read at the same time.

    Args:
        directory: the run's ``checkpoints/``; made by the first `save`.
        keep: how many sound ones to keep, at least 1.
    """

    def __init__(self, directory: str | os.PathLike[str], keep: int = 2) -> None:
        if keep < 1:
            raise UserError(f"checkpoint.keep is {keep}; at least 1 checkpoint must be kept")
        self.directory = Path(directory)
        self.keep = keep
        self._damaged: set[Path] = set()

    def save(self, step: int, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> Path:
        """Writes the checkpoint of `step` (environment frames) and removes the oldest ones.

        Args:
            step: names the folder; one that is there for the same step is replaced.
            arrays: name -> array of numbers or booleans, any shape.
            state: what JSON can hold (finite numbers, strings, lists, maps with strings as keys).

        Returns the checkpoint's folder.

        Raises:
            StorageError: see `dreamer.files.atomic_write`; the older checkpoints stay.
            TypeError, ValueError: something that cannot be stored exactly.
        """
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        for name, array in arrays.items():
            if array.dtype.kind not in KINDS:
                raise TypeError(f"array {name!r} has dtype {array.dtype}; expected numbers")
        text = json.dumps(dict(state), allow_nan=False).encode()
        path = self.directory / f"{step:012d}"
        needed = sum(array.nbytes + 256 for array in arrays.values()) + len(text) + 512
        make_folder(self.directory)
        with storage_errors(path, needed):
            remove_temporaries(self.directory)
            with atomic_folder(path, needed) as folder:
                write(folder, step, arrays, text)
            self._damaged.discard(path)
            self._prune()
        return path

    def load_latest(self, like: Mapping[str, np.ndarray] | None = None) -> Checkpoint | None:
        """The newest checkpoint that proves sound, or None where there is none at all.

        For a damaged newer one a `UserWarning` names it, what is wrong with it, and the one used.
        Another process may save meanwhile.

        Args:
            like: the arrays of the agent that it is for; files of far more bytes are not read.

        Raises:
            UserError: there are checkpoints, and all of them are damaged.
        """
        for _ in range(_LISTINGS):
            before = self._identities()
            found, reasons = self._find(_most(like))
            if not reasons or self._identities() == before:
                break  # what is missing was not removed or replaced since we looked
        self._damaged.update(reasons)
        listed = "; ".join(f"{path} ({reason})" for path, reason in reasons.items())
        if reasons and found is None:
            raise UserError(
                f"no checkpoint can be used: {listed}; bring one back from a copy, or move "
                f"{self.directory} away to learn anew from the collected episodes"
            )
        for damaged, reason in reasons.items():
            assert found is not None
            warnings.warn(
                f"checkpoint {damaged} is damaged ({reason}); using {found.path} instead",
                stacklevel=2,
            )
        return found

    def _find(self, most: int) -> tuple[Checkpoint | None, dict[Path, str]]:
        """The newest sound one, and what is wrong with each of those that are newer."""
        reasons: dict[Path, str] = {}
        for step, path in self._listed():
            try:
                return read(step, path, most), reasons
            except DamagedError as error:
                reasons[path] = str(error)
        return None, reasons

    def _identities(self) -> list[tuple[Path, int]]:
        """What stands there, such that another one of the same name differs."""
        found = []
        for _, path in self._listed():
            with contextlib.suppress(FileNotFoundError):
                found.append((path, path.lstat().st_ino))
        return found

    def newest(self) -> Path | None:
        """The newest checkpoint not known to be damaged, unread; None if there is none."""
        paths = [path for _, path in self._listed() if path not in self._damaged]
        return paths[0] if paths else None

    @staticmethod
    def load(
        path: str | os.PathLike[str], like: Mapping[str, np.ndarray] | None = None
    ) -> Checkpoint:
        """The checkpoint in the folder `path`; `like` as `load_latest` takes it.

        Raises:
            UserError: there is none, or it is damaged.
        """
        step = Checkpoints.step_of(path)
        try:
            return read(step, Path(path).expanduser(), _most(like))
        except DamagedError as error:
            raise UserError(f"checkpoint {path} is damaged ({error}); choose another") from error

    @staticmethod
    def step_of(path: str | os.PathLike[str]) -> int:
        """The step that a checkpoint's folder is named after.

        Raises:
            UserError: it is no checkpoint's folder.
        """
        folder = Path(path).expanduser()
        name = _NAME.fullmatch(folder.absolute().name)
        if name and folder.is_dir():
            return int(name[1])
        raise UserError(
            f"{path} is no checkpoint; expected a folder like "
            "runs/dmc_walker_walk/dreamer/0/checkpoints/000000010000"
        )

    def _listed(self) -> list[tuple[int, Path]]:
        """Steps and paths, newest first; of one step the one that was being replaced comes last."""
        if not self.directory.is_dir():
            return []
        names = [(_NAME.fullmatch(path.name), path) for path in self.directory.iterdir()]
        found = [(int(name[1]), name[2] is None, path) for name, path in names if name]
        return [(step, path) for step, _, path in sorted(found, reverse=True)]

    def _prune(self) -> None:
        """Removes what is older than the newest `keep` sound ones; damaged ones do not count."""
        sound = [path for _, path in self._listed() if path not in self._damaged]
        if len(sound) <= self.keep:
            return
        oldest = sound[self.keep - 1]
        paths = [path for _, path in self._listed()]
        for path in paths[paths.index(oldest) + 1 :]:
            discard(path)
            self._damaged.discard(path)


def _most(like: Mapping[str, np.ndarray] | None) -> int:
    """Bytes that a file of a checkpoint may have, such that one of another agent still has them."""
    return MOST if like is None else 2 * sum(np.asarray(a).nbytes for a in like.values()) + _SLACK
