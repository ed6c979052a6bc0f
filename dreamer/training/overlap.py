"""Something done in the background of the training loop, which ends before the loop goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable

from dreamer.training.collector import Policy, Timesteps


class AbandonedError(Exception):
    """Raised in the background to end it: the foreground has failed, or was asked to stop."""


class Background:
    """Runs `work` in a thread of its own for as long as the ``with`` block takes, or longer.

    The end of the block waits for it, and raises what `work` has raised. An error in the block ends
    the work at its next action and goes before whatever the work raises.

    Args:
        work: takes a function that gives policies to use in it: they act as the one handed in, and
            end the work when the block has failed.
    """

    def __init__(self, work: Callable[[Callable[[Policy], Policy]], object]) -> None:
        self._work = work
        self._abandoned = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="overlap", daemon=True)

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._abandoned.set()
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._work(self._leaving)
        except BaseException as error:  # handed to the foreground, whatever it is
            self._error = error

    def _leaving(self, policy: Policy) -> Policy:
        def leaving(timesteps: Timesteps, state: object) -> tuple:
            if self._abandoned.is_set():
                raise AbandonedError
            return policy(timesteps, state)

        return leaving


class Lag:
    """How many updates a policy's weights are behind, at each of its actions.

    Args:
        due: updates that its weights would have seen had they been made before.
        made: tells how many have been made.
    """

    def __init__(self, due: int, made: Callable[[], int]) -> None:
        self._due, self._made = due, made
        self._lags: list[int] = []

    def watch(self, policy: Policy) -> Policy:
        """The same policy, whose lag is noted before it acts."""

        def watched(timesteps: Timesteps, state: object) -> tuple:
            self._lags.append(self._due - self._made())
            return policy(timesteps, state)

        return watched

    def scalars(self) -> dict[str, float]:
        """``overlap/lag``, the mean, and ``overlap/lag_max``; nothing if it never acted."""
        if not self._lags:
            return {}
        mean = sum(self._lags) / len(self._lags)
        return {"overlap/lag": mean, "overlap/lag_max": float(max(self._lags))}
