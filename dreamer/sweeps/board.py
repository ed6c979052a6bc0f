"""The display of a sweep: each trial's state, progress and return, and the time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from dreamer.logs.terminal import clean, duration, is_live
from dreamer.sweeps.plan import Trial
from dreamer.sweeps.trial import read_attempts, read_progress
from dreamer.system.streams import standard_output

LOOK_EVERY = 2.0  # seconds between two looks at the runs' files
LINE_EVERY = 60.0  # seconds between two plain lines about the whole sweep
_SPEED_OF = 1800.0  # seconds; the time left follows from the speed over the last ones
_STATES = ("running", "failed", "stopped", "waiting", "finished", "skipped")


@dataclass
class Entry:
    """A trial, its state, step and bar, how often it was started, and why it failed."""

    trial: Trial
    state: str
    step: int
    bar: TaskID
    starts: int = 0
    reason: str = ""


class Board:
    """Follows the trials of a sweep, and shows them as bars or in plain lines.

    `skipped` trials were finished before; the others are in the order of their submission. `kind`
    is "live", "plain", or "auto": live on a terminal. At most `slots` trials run at once.
    """

    def __init__(
        self, skipped: Sequence[Trial], trials: Sequence[Trial], kind: str, slots: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._slots, self._start, self._clock = slots, time.time(), clock
        self._last_look = self._last_line = clock()
        self._stream = standard_output()
        self._live = is_live(kind, self._stream)
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(None), TextColumn("{task.fields[words]}"),
            console=Console(file=self._stream, force_terminal=True),  # type: ignore[arg-type]
            get_time=clock, speed_estimate_period=_SPEED_OF, refresh_per_second=1, expand=True,
            disable=not self._live,
        )  # fmt: skip
        self._all = self._bars.add_task("", words="")
        self.entries: list[Entry] = []
        for state, group in (("skipped", skipped), ("waiting", trials)):
            for trial in group:
                name, total = escape(clean(trial.name)), trial.config.steps
                bar = self._bars.add_task(name, total=total, visible=False, words="")
                self.entries.append(Entry(trial, state, read_progress(trial.path).step, bar))
        self.summary()  # the time left counts from here
        self._bars.start()

    def finish(self, trial: Trial, state: str, reason: str) -> None:
        """Records how a trial ended, and says so."""
        entry = next(entry for entry in self.entries if entry.trial.path == trial.path)
        self._update(entry)
        entry.reason = reason
        entry.state = "finished" if state == "found finished" else state
        self._bars.update(entry.bar, visible=entry.state == "running")
        again = f" after {entry.starts} attempts" if entry.starts > 1 else ""
        self.message(f"{trial.name}: {entry.state}{again}{f': {reason}' if reason else ''}")

    def look(self) -> None:
        """Reads the files of trials that may have advanced, every few seconds."""
        now = self._clock()
        if now - self._last_look < LOOK_EVERY:
            return
        self._last_look = now
        active = [entry for entry in self.entries if entry.state in ("waiting", "running")]
        # Ray starts trials in about the order of their submission.
        for entry in active[: 2 * self._slots + 10]:
            self._update(entry)
        summary = self.summary()
        if not self._live and now - self._last_line >= LINE_EVERY:
            self._last_line = now
            self.message(summary)

    def message(self, text: str) -> None:
        """Prints a line above the bars, or as a plain line."""
        if self._live:
            self._bars.console.print(Text(clean(text)))
        else:
            self._stream.write(clean(text) + "\n")
            self._stream.flush()

    def summary(self) -> str:
        """Returns, and shows in the bar of the whole sweep, the number of trials in each state,
        the progress, and the time left."""
        counts = Counter(entry.state for entry in self.entries)
        listed = ", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state])
        total = made = left = 0
        for entry in self.entries:
            steps = entry.trial.config.steps
            total += steps
            made += min(entry.step, steps)
            left += max(0, steps - entry.step) * (entry.state in ("waiting", "running"))
        self._bars.update(self._all, completed=made, total=made + left)
        eta = self._bars.tasks[0].time_remaining
        words = f"{100 * made / max(total, 1):.1f}% of {total:,} steps; ETA {duration(eta)}"
        self._bars.update(self._all, description=listed, words=words)
        return f"{listed}; {words}"

    def close(self) -> None:
        """Ends the display; the last bars stay on the screen."""
        self.summary()
        self._bars.stop()

    def _update(self, entry: Entry) -> None:
        """Reads a trial's files."""
        attempts = read_attempts(entry.trial.path, self._start)
        starts = [attempt for attempt in attempts if attempt["event"] == "start"]
        if not starts:
            return
        progress, host = read_progress(entry.trial.path), starts[-1]["host"]
        if len(starts) > entry.starts:
            again = f"attempt {len(starts)}" if len(starts) > 1 else "started"
            self.message(f"{entry.trial.name}: {again} on {host}")
        # Between two attempts a trial waits for a free slot, as before the first one.
        entry.state = "running" if attempts[-1]["event"] == "start" else "waiting"
        entry.step, entry.starts = progress.step, len(starts)
        score = "" if progress.eval_return is None else f"return {progress.eval_return:.1f}, "
        words = f"{progress.step:,}/{entry.trial.config.steps:,}, {score}{host}"
        self._bars.update(
            entry.bar, completed=entry.step, visible=entry.state == "running",
            words=escape(clean(words)),
        )  # fmt: skip
