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
        what: "raised", "contract" (wrong shape, dtype, keys, or not finite), "died", "timed out",
            "did not start".
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
    "did not start": "check the limits of open files and processes (ulimit -n, ulimit -u), the "
    "machine's memory and the room in the folder of temporary files",
    "timed out": "check whether its steps hang, or give them longer with --envs.timeout",
}


def suggest(word: str, known: Iterable[str], *, most: int = 1, prefix: str = "") -> str:
    """Returns ``"; did you mean 'x' or 'y'?"`` for the known words nearest to `word`, or ``""``.

    Args:
        word: what was typed.
        known: what could have been.
        most: words to name at most, the nearest first.
        prefix: what stands before each of them when they are named.
    """
    near = difflib.get_close_matches(word, list(known), n=most, cutoff=0.5)
    named = [repr(prefix + name) for name in near]
    listed = " or ".join(filter(None, (", ".join(named[:-1]), *named[-1:])))
    return f"; did you mean {listed}?" if near else ""
