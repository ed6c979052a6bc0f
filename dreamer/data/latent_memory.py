"""Latent states of replayed timesteps, from which sequences can start (DreamerV3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from dreamer.data.episodes import EpisodeFile

Piece = tuple[EpisodeFile, int, int]
"""Timesteps start to stop - 1 of an episode, as a part of a sequence."""


class LatentMemory:
    """The state that each timestep had in the last update that saw it.

    The states are in memory alone, in float16; a resumed run begins without any. They age as the
    model learns: an episode's states are from as many updates ago as it was not drawn.

    Args:
        limit: Bytes for the states. Beyond it, the episodes that were stored longest ago lose
            theirs.
        size: F, the size of a state.

    Attributes:
        nbytes: Bytes of the states held.
    """

    def __init__(self, limit: float, size: int) -> None:
        self._limit, self._size, self.nbytes = limit, size, 0
        # [L, F] of each episode, NaN where unknown; the one stored longest ago is the first.
        self._states: dict[Path, np.ndarray] = {}

    def before(self, sequences: Iterable[Sequence[Piece]]) -> np.ndarray:
        """Returns the states before the first timesteps of sequences, zeros where unknown.

        Args:
            sequences: The pieces of each, B in all.
        Returns:
            float32 [B, F].
        """
        unknown, rows = np.zeros(self._size, np.float32), []
        for (file, start, _), *_ in sequences:
            known = start > 0 and file.path in self._states
            state = self._states[file.path][start - 1] if known else unknown
            rows.append(unknown if np.isnan(state[0]) else state.astype(np.float32))
        return np.stack(rows)

    def store(self, sequences: Iterable[Sequence[Piece]], states: np.ndarray) -> None:
        """Stores the states [B, T, F] of sequences. Those that are not finite stay unknown."""
        with np.errstate(over="ignore"):
            rounded = states.astype(np.float16)
        rounded[~np.isfinite(rounded).all(-1)] = np.nan
        for pieces, row in zip(sequences, rounded, strict=True):
            at = 0
            for file, start, stop in pieces:
                self._of(file)[start:stop] = row[at : at + stop - start]
                at += stop - start
        while self.nbytes > self._limit:
            self.forget(next(iter(self._states)))

    def forget(self, path: Path) -> None:
        """Forgets the states of an episode, if there are any."""
        if path in self._states:
            self.nbytes -= self._states.pop(path).nbytes

    def _of(self, file: EpisodeFile) -> np.ndarray:
        """An episode's states, which become the newest."""
        states = self._states.pop(file.path, None)
        if states is None:
            states = np.full((file.length, self._size), np.nan, np.float16)
            self.nbytes += states.nbytes
        self._states[file.path] = states
        return states
