"""Numbers as text."""

from __future__ import annotations

from collections.abc import Iterable


def short_frames(frames: float) -> str:
    """Returns ``5M``, ``250k`` or ``0``, to three digits."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if round(frames / unit, 3) >= 1:
            return f"{frames / unit:.3g}{name}"
    return f"{frames:.3g}"


def frames_range(frames: Iterable[float]) -> str:
    """Returns ``300k`` or ``200k-300k``: the least and the greatest of frames above 0.

    ``""`` where there are none.
    """
    known = sorted(value for value in frames if value)
    return "-".join(dict.fromkeys(map(short_frames, known[:1] + known[-1:])))


def short_score(score: float) -> str:
    """Returns a score to one digit after the point, a small one (normalised) to three."""
    return f"{score:.1f}" if abs(score) >= 10 else f"{score:.3f}"
