"""Work in the background of the training loop, which ends before the loop continues."""

from __future__ import annotations

import threading
from collections.abc import Callable

from dreamer.training.collector import Policy, Timesteps


class AbandonedError(Exception):
    """Raised in the background to end it: the foreground has failed, or was asked to stop."""


class Background:
    """Runs `work` in a thread while the ``with`` block runs; the block's end waits for it.

    What `work` raises is raised at the end of the block. If the block itself fails, `work` ends at
    its next action, and the block's error takes precedence.

    Args:
        work: Takes a function that makes a policy stoppable: once the block has failed, that
            policy ends the work instead of acting.
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
            self._work(self._stoppable)
        except BaseException as error:  # raised in the foreground, whatever it is
            self._error = error

    def _stoppable(self, policy: Policy) -> Policy:
        def stoppable(timesteps: Timesteps, state: object) -> tuple:
            if self._abandoned.is_set():
                raise AbandonedError
            return policy(timesteps, state)

        return stoppable


class Lag:
    """Measures by how many updates a policy's weights are late, at each of its actions.

    Args:
        due: Updates that its weights would have seen without overlap.
        made: Returns how many have been made.
    """

    def __init__(self, due: int, made: Callable[[], int]) -> None:
        self._due, self._made = due, made
        self._lags: list[int] = []

    def measure(self, policy: Policy) -> Policy:
        """Returns the same policy, which notes its lag before it acts."""

        def measured(timesteps: Timesteps, state: object) -> tuple:
            self._lags.append(self._due - self._made())
            return policy(timesteps, state)

        return measured

    def scalars(self) -> dict[str, float]:
        """Returns the mean as ``overlap/lag`` and ``overlap/lag_max``; {} if it never acted."""
        if not self._lags:
            return {}
        mean = sum(self._lags) / len(self._lags)
        return {"overlap/lag": mean, "overlap/lag_max": float(max(self._lags))}
