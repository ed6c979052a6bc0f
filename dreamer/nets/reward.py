"""Reward head (arXiv 1912.01603, section 3 and appendix A)."""

from __future__ import annotations

from dreamer.nets.layers import UnitNormalHead


class Reward(UnitNormalHead):
    """Reward received on arriving in a state."""
