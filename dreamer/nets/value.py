"""Value head (arXiv 1912.01603, section 3 and appendix A)."""

from __future__ import annotations

from dreamer.nets.layers import UnitNormalHead


class Value(UnitNormalHead):
    """Predicts the lambda-return of a state, which includes the state's own reward."""
