"""Episodes that have begun and not ended, and what it takes to bring them back."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dreamer.envs.spec import Record


@dataclass(frozen=True)
class UnderWay:
    """An episode, of that number, as far as it has come.

    Attributes:
        actions: float32 [L, A], of its records so far; the first is zero.
        digest: CRC-32 of its newest record.
    """

    number: int
    actions: np.ndarray
    digest: int


@dataclass
class Running:
    """An episode under way: its number, its task and its records so far, each with its action."""

    number: int
    task: str
    records: list[Record]

    def summary(self) -> UnderWay:
        digest = 0
        for key, value in sorted(self.records[-1].items()):
            digest = zlib.crc32(key.encode() + np.asarray(value).tobytes(), digest)
        actions = np.stack([record["action"] for record in self.records])
        return UnderWay(self.number, actions, digest)
