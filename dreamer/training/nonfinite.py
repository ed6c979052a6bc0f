"""Updates that are not finite are counted and their batches kept; too many end the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.errors import UserError
from dreamer.io.files import DiskFullError, atomic_write, make_folder

KEPT = 5  # batches, the newest


class NonFiniteError(UserError):
    """Too many updates in a row had a loss or gradient that was not finite."""

    status = 65  # EX_DATAERR


@dataclass(eq=False)
class NonFiniteGuard:
    """Watches for updates that are not finite."""

    folder: Path  # where their batches are saved, as update-<number>.npz; made with the first
    limit: int  # as many in a row end the run
    say: Callable[[str], None]  # takes messages for the user
    count: int = field(default=0, init=False)  # updates that were not finite and changed nothing
    _in_a_row: int = field(default=0, init=False)

    def check(
        self, first: int, batch: Mapping[str, np.ndarray], metrics: Mapping[str, Any]
    ) -> None:
        """Checks the updates that one call has made.

        Args:
            first: Number of the first update.
            batch: What it learnt from; of several updates, [count, ...] each.
            metrics: What it returned; "nonfinite" is a flag, or of several updates flags [count].

        Raises:
            NonFiniteError: There were too many.
        """
        flags = np.asarray(metrics["nonfinite"])
        for i, flag in enumerate(flags.reshape(-1)):
            self._in_a_row = self._in_a_row + 1 if flag else 0
            if not flag:
                continue
            self.count += 1
            means = {name: float(np.mean(value)) for name, value in metrics.items()}
            bad = ", ".join(f"{k} {v}" for k, v in means.items() if not np.isfinite(v))
            own = batch if flags.ndim == 0 else {k: v[i] for k, v in batch.items()}
            self.say(
                f"warning: update {first + i} was not finite ({bad or 'its gradients'}); weights "
                f"and optimizers stay as they were{self._keep(first + i, own)}"
            )
            if self._in_a_row >= self.limit:
                raise NonFiniteError(
                    f"{self._in_a_row} updates in a row were not finite ({bad}); batches are in "
                    f"{self.folder}: look for extreme values in them, and try --precision float32 "
                    "or smaller learning rates in a new run, which may begin with this one's "
                    "episodes (--replay.directory)"
                )

    def _keep(self, update: int, batch: Mapping[str, np.ndarray]) -> str:
        """Saves a batch in place of the oldest; returns a message about it."""
        path = self.folder / f"update-{update:08d}.npz"
        try:
            make_folder(self.folder)
            with atomic_write(path, sum(array.nbytes for array in batch.values())) as file:
                np.savez(file, allow_pickle=False, **batch)
        except DiskFullError as error:
            return f"; its batch is not kept ({error})"
        # By time: a run that resumes from an earlier checkpoint repeats their numbers.
        others = sorted(
            (file for file in self.folder.glob("update-*.npz") if file != path),
            key=lambda file: (file.stat().st_mtime_ns, file.name),
        )
        for old in others[: 1 - KEPT]:
            old.unlink()
        return f"; its batch is in {path}"
