"""What the tests of a promise come to."""

from __future__ import annotations

from collections.abc import Sequence


def verdict(outcomes: Sequence[str]) -> str:
    """Of the outcomes of a promise's tests; those skipped have shown nothing, and are counted."""
    skipped = outcomes.count("skipped")
    if "failed" in outcomes:
        return "BROKEN"
    if "passed" not in outcomes:
        return "skipped"
    return f"kept, {skipped} skipped" if skipped else "kept"
