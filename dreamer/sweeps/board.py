"""The display of a sweep: each trial's state, progress and return, and the time left."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dreamer.logs.terminal import clean, duration
from dreamer.sweeps.plan import Trial
from dreamer.sweeps.trial import Progress, read_attempts, read_progress
from dreamer.system.streams import standard_output

LOOK_EVERY = 2.0  # seconds between two looks at the runs' files
LINE_EVERY = 60.0  # seconds between two plain lines about the whole sweep
#: Waiting trials to look at, in addition to the number that run at once. Ray starts trials in
#: about the order of their submission.
_LOOK_AHEAD = 10
#: States in the order of display, with their styles.
_STYLES = {
    "running": "bold", "failed": "red", "stopped": "yellow", "waiting": "dim",
    "finished": "green", "skipped": "dim",
}  # fmt: skip


@dataclass
class Entry:
    """A trial's state, its progress, and where and how often it was started."""

    trial: Trial
    state: str
    progress: Progress
    host: str = ""
    starts: int = 0
    reason: str = ""


class Board:
    """Follows the trials of a sweep and shows them in a live table, or in plain lines.

    Args:
        skipped: Trials that were finished before.
        trials: Trials to run, in the order of their submission.
        kind: "live", "plain", or "auto": live on a terminal.
        slots: Number of trials that run at once.
        clock: Returns seconds.
    """

    def __init__(
        self, skipped: Sequence[Trial], trials: Sequence[Trial], kind: str, slots: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.entries = [Entry(t, "skipped", read_progress(t.path)) for t in skipped]
        self.entries += [Entry(t, "waiting", read_progress(t.path)) for t in trials]
        self._by_path = {entry.trial.path: entry for entry in self.entries}
        self._slots, self._start, self._clock = slots, time.time(), clock
        self._last_look = self._last_line = clock()
        self._marks = deque([(self._last_look, self._steps_left())], maxlen=900)  # half an hour
        self._stream = standard_output()
        able = self._stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb")
        self._console = Console(file=self._stream, force_terminal=True)  # type: ignore[arg-type]
        self._live: Live | None = None
        if kind == "live" or (kind == "auto" and able):
            self._live = Live(
                get_renderable=self._render, console=self._console, refresh_per_second=1
            )
            self._live.start()

    def finish(self, trial: Trial, state: str, reason: str) -> None:
        """Records how a trial ended, and says so."""
        entry = self._by_path[trial.path]
        self._update(entry)
        entry.reason = reason
        entry.state = "finished" if state == "found finished" else state
        again = f" after {entry.starts} attempts" if entry.starts > 1 else ""
        self.message(f"{trial.name}: {entry.state}{again}{f': {reason}' if reason else ''}")

    def look(self) -> None:
        """Reads the files of trials that may have advanced, every few seconds."""
        now = self._clock()
        if now - self._last_look < LOOK_EVERY:
            return
        self._last_look = now
        waiting = 0
        for entry in self._unfinished():
            self._update(entry)
            waiting += entry.state == "waiting"
            if waiting > _LOOK_AHEAD + self._slots:
                break
        self._marks.append((now, self._steps_left()))
        if self._live is None and now - self._last_line >= LINE_EVERY:
            self._last_line = now
            self.message(self.summary())

    def message(self, text: str) -> None:
        """Prints a line above the live table, or as a plain line."""
        if self._live is not None:
            self._console.print(Text(clean(text)))
        else:
            self._stream.write(clean(text) + "\n")
            self._stream.flush()

    def summary(self) -> str:
        """Returns the number of trials in each state, the progress, and the time left."""
        counts = Counter(entry.state for entry in self.entries)
        listed = ", ".join(f"{counts[state]} {state}" for state in _STYLES if counts[state])
        steps, total = self._steps()
        percent = 100 * steps / max(total, 1)
        return f"{listed}; {percent:.1f}% of {total:,} steps; ETA {duration(self.eta())}"

    def eta(self) -> float | None:
        """Returns the seconds left at the speed of the last half hour; None if unknown."""
        (then, before), (now, left) = self._marks[0], self._marks[-1]
        left_now = self._steps_left()
        if not left_now:
            return 0.0
        return left_now * (now - then) / (before - left) if before > left else None

    def close(self) -> None:
        """Ends the live display; its last table stays on the screen."""
        if self._live is not None:
            self._live.stop()

    def _unfinished(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.state in ("waiting", "running")]

    def _steps(self) -> tuple[int, int]:
        """Returns the steps made, and all steps."""
        total = [entry.trial.config.steps for entry in self.entries]
        made = [entry.progress.step for entry in self.entries]
        return sum(map(min, made, total)), sum(total)

    def _steps_left(self) -> int:
        return sum(max(0, e.trial.config.steps - e.progress.step) for e in self._unfinished())

    def _update(self, entry: Entry) -> None:
        """Reads a trial's files."""
        attempts = read_attempts(entry.trial.path, self._start)
        starts = [attempt for attempt in attempts if attempt["event"] == "start"]
        if not starts:
            return
        entry.progress, host = read_progress(entry.trial.path), str(starts[-1]["host"])
        if len(starts) > entry.starts:
            again = f"attempt {len(starts)}" if len(starts) > 1 else "started"
            self.message(f"{entry.trial.name}: {again} on {host}")
        # Between two attempts a trial waits for a free slot, as before the first one.
        entry.state = "running" if attempts[-1]["event"] == "start" else "waiting"
        entry.host, entry.starts = host, len(starts)

    def _render(self) -> Group:
        room = max(4, self._console.height - 5)
        order = list(_STYLES)
        ordered = sorted(self.entries, key=lambda entry: order.index(entry.state))
        table = Table(box=None, pad_edge=False, expand=True)
        table.add_column("trial", no_wrap=True, ratio=3)
        for column in ("state", "steps", "return", "host"):
            table.add_column(column, no_wrap=True, justify="right" if column != "host" else "left")
        for entry in ordered[:room]:
            table.add_row(*_cells(entry), style=_STYLES[entry.state])
        foot = Table.grid(expand=True)  # a bar by itself would not end its line
        if len(ordered) > room:
            foot.add_row(Text(f"and {len(ordered) - room} more", "dim"))
        steps, total = self._steps()
        foot.add_row(ProgressBar(total=total, completed=steps))
        foot.add_row(Text(self.summary()))
        return Group(table, foot)


def _cells(entry: Entry) -> list[Text]:
    progress, steps = entry.progress, entry.trial.config.steps
    score = "" if progress.eval_return is None else f"{progress.eval_return:.1f}"
    state = f"{entry.state} ({entry.starts})" if entry.starts > 1 else entry.state
    words = (entry.trial.name, state, f"{progress.step:,}/{steps:,}", score, entry.host)
    return [Text(clean(word)) for word in words]
