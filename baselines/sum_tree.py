"""Drawing with given probabilities from many items: the tree of prioritised replay."""

from __future__ import annotations

import numpy as np


class SumTree:
    """Masses of `size` items, drawn in proportion to them (arXiv 1511.05952, appendix B.2.1).

    A binary tree in one array: node i has the children 2 i and 2 i + 1 and holds their sum; the
    leaves are the items. Setting and drawing m items takes O(m log size), all of them at once.

    Args:
        size: Number of items; all masses are 0 at first.
    """

    def __init__(self, size: int):
        self._leaves = 1 << max(size - 1, 1).bit_length()
        self._nodes = np.zeros(2 * self._leaves)

    @property
    def total(self) -> float:
        """Sum of all masses."""
        return float(self._nodes[1])

    def masses(self, items: np.ndarray) -> np.ndarray:
        """Masses float64 [m] of items [m]."""
        return self._nodes[self._leaves + items]

    def set(self, items: np.ndarray, masses: np.ndarray | float) -> None:
        """Gives items [m] masses [m], not negative; of an item named twice, the last counts."""
        nodes = self._leaves + np.asarray(items)
        self._nodes[nodes] = masses
        while len(nodes) and nodes[0] > 1:
            nodes = np.unique(nodes // 2)
            self._nodes[nodes] = self._nodes[2 * nodes] + self._nodes[2 * nodes + 1]

    def draw(self, uniform: np.ndarray) -> np.ndarray:
        """The items at shares [m] of the total, in [0, 1): int64 [m], none of mass 0."""
        left = np.asarray(uniform, np.float64) * self.total
        nodes = np.ones(len(left), np.int64)
        while nodes[0] < self._leaves:
            nodes *= 2
            mass = self._nodes[nodes]
            # Rounding may leave a share at or beyond a subtree's end: an empty one is not entered.
            right = (left >= mass) & (self._nodes[nodes + 1] > 0)
            left = np.where(right, left - mass, left)
            nodes += right
        return nodes - self._leaves


def importance_weights(probabilities: np.ndarray, beta: float) -> np.ndarray:
    """What makes up for drawing by priority: (N P)^-beta over the batch's largest; N cancels.

    Args:
        probabilities: P of the drawn items, [..., B], or anything proportional to it.
        beta: 0 leaves the bias, 1 removes it.
    Returns:
        float32 [..., B], the largest of each batch 1 (arXiv 1511.05952, section 3.4).
    """
    weights = probabilities**-beta
    return (weights / weights.max(-1, keepdims=True)).astype(np.float32)
