"""The errors that command lines print as a message, and suggestions for mistyped words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """The user made a mistake, or something is missing on the machine.

    The message says what was wrong, what was expected and what to do. Command lines print it
    without a traceback and exit with `status`.
    """

    status = 2


class NoImageError(UserError):
    """An environment renders no image."""


class ContractError(ValueError):
    """An environment returned what its own spaces or `dreamer.envs.spec` do not allow."""


class EnvError(RuntimeError):
    """An environment's process failed.

    Command lines print it with the worker's own traceback and exit with `status`. `index` is the
    worker's number. The kind is "raised", "contract" (wrong shape, dtype or keys, or not finite),
    "died", "timed out" or "did not start". `traceback` may be the end of the worker's output.
    """

    status = 70  # EX_SOFTWARE

    def __init__(self, index: int, kind: str, message: str, traceback: str = ""):
        self.index, self.kind, self.message, self.traceback = index, kind, message, traceback
        text = f"environment {index} {kind}: {message}"
        super().__init__(f"{text}\n{traceback.rstrip()}" if traceback.strip() else text)

    @property
    def last_line(self) -> str:
        """The last line of the worker's traceback, or the message's first line without one."""
        lines = self.traceback.rstrip().splitlines() if self.kind == "raised" else []
        return (lines or self.message.splitlines())[-1 if lines else 0]

    @property
    def advice(self) -> str:
        """What the user should check."""
        return _ENV_ADVICE[self.kind]


_ENV_ADVICE = {
    "raised": "the traceback above is the environment's own: check the place it names",
    "contract": "what the environment returned is not what its spaces promise: check its "
    "observations and rewards (dreamer.envs.conformance.check_env tests one)",
    "died": "check its output above, the memory of the machine (the kernel's log names what it "
    "killed) and the simulator's libraries",
    "did not start": "check the limits of open files and processes (ulimit -n, ulimit -u), the "
    "machine's memory and the room in the folder of temporary files",
    "timed out": "check whether its steps hang, or give them longer with --envs.timeout",
}


def suggest(word: str, known: Iterable[str], *, most: int = 1, prefix: str = "") -> str:
    """Returns ``"; did you mean 'x' or 'y'?"`` with the known words nearest to `word`, or ``""``.

    It names at most `most` words, the nearest first, each after `prefix`.
    """
    near = difflib.get_close_matches(word, list(known), n=most, cutoff=0.6)
    named = [repr(prefix + name) for name in near]
    listed = " or ".join(filter(None, (", ".join(named[:-1]), *named[-1:])))
    return f"; did you mean {listed}?" if near else ""
