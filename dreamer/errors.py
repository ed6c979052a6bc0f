"""The one kind of error that is the user's to mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user asked for, or something missing on their machine.

    The message is complete in itself: what was wrong, what was expected, what to do. Command
    lines print it without a traceback and exit with `status`.
    """

    status = 2


class EnvError(RuntimeError):
    """An environment's process failed.

    Command lines print it with the worker's own traceback and exit with `status`.

    Attributes:
        index: of the worker.
        what: "raised", "contract" (wrong shape, dtype, keys, or not finite), "died", "timed out".
        traceback: the worker's own, or the end of what it printed.
    """

    status = 70  # EX_SOFTWARE

    def __init__(self, index: int, what: str, message: str, traceback: str = ""):
        self.index, self.what, self.message, self.traceback = index, what, message, traceback
        text = f"environment {index} {what}: {message}"
        super().__init__(f"{text}\n{traceback.rstrip()}" if traceback.strip() else text)

    @property
    def advice(self) -> str:
        """What to check."""
        return _ENV_ADVICE[self.what]


_ENV_ADVICE = {
    "raised": "the traceback above is the environment's own: check the place it names",
    "contract": "what the environment returned is not what its spaces promise: check its "
    "observations and rewards (dreamer.envs.conformance.check_env tests one)",
    "died": "check its last words above, the memory of the machine (the kernel's log names what it "
    "killed) and the simulator's libraries",
    "timed out": "check whether its steps hang, or give them longer with --envs.timeout",
}


def suggest(word: str, known: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the known word nearest to `word`, or ``""``."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
