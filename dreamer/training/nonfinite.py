"""Updates that came out not finite: counted, kept to be looked at, and too many end the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from dreamer.errors import UserError
from dreamer.io.files import DiskFullError, atomic_write, make_folder

KEPT = 5  # batches, the newest


class NonFiniteError(UserError):
    """Too many updates in a row had a loss or gradient that was not finite."""

    status = 65  # EX_DATAERR


class NonFiniteGuard:
    """Watches the updates.

    Args:
        folder: Takes the batches of such updates, ``update-<number>.npz``; made with the first.
        limit: So many in a row end the run.
        say: Takes messages for the user.

    Attributes:
        count: Updates so far that were not finite and changed nothing.
    """

    def __init__(self, folder: Path, limit: int, say: Callable[[str], None]) -> None:
        self.count = 0
        self._folder, self._limit, self._say = folder, limit, say
        self._in_a_row = 0

    def check(
        self, update: int, batch: Mapping[str, np.ndarray], metrics: Mapping[str, float]
    ) -> None:
        """Takes note of an update.

        Args:
            update: Its number.
            batch: What it learnt from.
            metrics: What it returned: "nonfinite" and all others.

        Raises:
            NonFiniteError: it was one too many.
        """
        if not metrics["nonfinite"]:
            self._in_a_row = 0
            return
        self.count += 1
        self._in_a_row += 1
        bad = ", ".join(f"{k} {v}" for k, v in metrics.items() if not np.isfinite(v))
        self._say(
            f"warning: update {update} was not finite ({bad or 'its gradients'}); weights and "
            f"optimizers stay as they were{self._keep(update, batch)}"
        )
        if self._in_a_row >= self._limit:
            raise NonFiniteError(
                f"{self._in_a_row} updates in a row were not finite ({bad}); batches are in "
                f"{self._folder}: look for extreme values in them, and try --precision float32 or "
                "smaller learning rates in a new run, which may begin with this one's episodes "
                "(--replay.directory)"
            )

    def _keep(self, update: int, batch: Mapping[str, np.ndarray]) -> str:
        """Saves a batch in place of the oldest; returns what to say of it."""
        path = self._folder / f"update-{update:08d}.npz"
        try:
            make_folder(self._folder)
            with atomic_write(path, sum(array.nbytes for array in batch.values())) as file:
                np.savez(file, allow_pickle=False, **batch)
        except DiskFullError as error:
            return f"; its batch is not kept ({error})"
        # By time: a run that went on from a checkpoint before them repeats their numbers.
        others = sorted(
            (file for file in self._folder.glob("update-*.npz") if file != path),
            key=lambda file: (file.stat().st_mtime_ns, file.name),
        )
        for old in others[: 1 - KEPT]:
            old.unlink()
        return f"; its batch is in {path}"
