"""Which records of which episodes make up a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dreamer.episodes import EpisodeFile


@dataclass(frozen=True, slots=True)
class Piece:
    """Records start..stop-1 of an episode, which go to row `row` of a batch from `at` on."""

    row: int
    at: int
    file: EpisodeFile
    start: int
    stop: int


def plan_batch(
    files: Sequence[EpisodeFile], rng: np.random.Generator, batch_size: int, length: int
) -> list[Piece]:
    """Draws the pieces of a batch [batch_size, length]; see `dreamer.replay.Replay.sample`."""
    pieces = []
    for row in range(batch_size):
        at = 0
        while at < length:
            file = files[int(rng.integers(len(files)))]
            start = 0
            if at == 0 and file.length > length:
                start = int(rng.integers(file.length - length + 1))
            stop = min(start + length - at, file.length)
            pieces.append(Piece(row, at, file, start, stop))
            at += stop - start
    return pieces
