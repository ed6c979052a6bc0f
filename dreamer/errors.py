"""The one kind of error that is the user's to mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user asked for, or something missing on their machine.

    The message is complete in itself: what was wrong, what was expected, what to do. Command
    lines print it without a traceback and exit with status 2.
    """


def suggest(word: str, known: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the known word nearest to `word`, or ``""``."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
