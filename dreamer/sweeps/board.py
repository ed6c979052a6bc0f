"""What a sweep shows: every trial's state, progress and return, and the time left."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dreamer.sweeps.attempts import attempts
from dreamer.sweeps.plan import Trial
from dreamer.sweeps.progress import Progress, read_progress
from dreamer.terminal import LastingStream, clean, duration

# Trials that are looked at beyond those known to run: Ray starts them in about this order.
_LOOK_AHEAD = 10
_STYLES = {"running": "bold", "finished": "green", "failed": "red", "stopped": "yellow"}
_ORDER = ("running", "failed", "stopped", "waiting", "finished", "skipped")


@dataclass
class Entry:
    """What is known of a trial: state, where and how often it has been started, how far it is."""

    trial: Trial
    state: str
    progress: Progress
    host: str = ""
    starts: int = 0
    why: str = ""


class Board:
    """Keeps the trials' states, and shows them: a live table, or plain lines without a terminal.

    Args:
        skipped: finished before.
        trials: to be run, in the order of their submission.
        kind: "auto", "live" or "plain".
        slots: trials that run at once.
        every: seconds between two looks at the runs' files.
        lines_every: seconds between two plain lines on the sweep as a whole.
    """

    def __init__(
        self, skipped: Sequence[Trial], trials: Sequence[Trial], kind: str, slots: int,
        every: float = 2.0, lines_every: float = 60.0,
    ) -> None:  # fmt: skip
        self.entries = [Entry(t, "skipped", read_progress(t.path)) for t in skipped]
        self.entries += [Entry(t, "waiting", read_progress(t.path)) for t in trials]
        self._by_path = {entry.trial.path: entry for entry in self.entries}
        self._slots, self._every, self._lines_every = slots, every, lines_every
        self._began = time.time()
        self._looked = self._said = time.monotonic()
        self._marks: deque[tuple[float, int]] = deque([(self._looked, self._left())], maxlen=900)
        self._stream = LastingStream(sys.stdout or open(os.devnull, "w"))  # noqa: SIM115
        able = self._stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb")
        self._live: Live | None = None
        if kind == "live" or (kind == "auto" and able):
            console = Console(file=self._stream, force_terminal=True)  # type: ignore[arg-type]
            self._live = Live(get_renderable=self._render, console=console, refresh_per_second=1)
            self._live.start()

    def ended(self, trial: Trial, state: str, why: str) -> None:
        """Takes in how a trial ended."""
        entry = self._by_path[trial.path]
        self._look_at(entry)
        entry.why = why
        entry.state = "finished" if state == "found finished" else state
        again = f" after {entry.starts} attempts" if entry.starts > 1 else ""
        self.message(f"{trial.name}: {entry.state}{again}{f': {why}' if why else ''}")

    def look(self) -> None:
        """Reads the files of runs that may have gone on, if it is time to."""
        now = time.monotonic()
        if now - self._looked < self._every:
            return
        self._looked = now
        idle = 0
        for entry in self.entries:
            if entry.state not in ("waiting", "running"):
                continue
            self._look_at(entry)
            idle += entry.state == "waiting"
            if idle > _LOOK_AHEAD + self._slots:
                break
        self._marks.append((now, self._left()))
        if self._live is None and now - self._said >= self._lines_every:
            self._said = now
            self.message(self.summary())

    def message(self, text: str) -> None:
        """Shows a line for good."""
        if self._live is not None:
            self._live.console.print(Text(clean(text)))
        else:
            self._stream.write(clean(text) + "\n")
            self._stream.flush()

    def summary(self) -> str:
        """How many trials are where, and the time left."""
        counts = Counter(entry.state for entry in self.entries)
        listed = ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state])
        total = sum(entry.trial.config.steps for entry in self.entries)
        done = 100 * (1 - self._left() / max(total, 1))
        return f"{listed}; {done:.1f}% of {total:,} steps; ETA {duration(self.eta())}"

    def eta(self) -> float | None:
        """Seconds to the end, at the speed of the last half hour; None while unknown."""
        (then, before), (now, left) = self._marks[0], self._marks[-1]
        if before <= left:
            return None if left else 0.0
        return left * (now - then) / (before - left)

    def close(self) -> None:
        """Leaves the last table standing and gives the terminal back."""
        if self._live is not None:
            self._live.stop()

    def _left(self) -> int:
        return sum(
            max(0, entry.trial.config.steps - entry.progress.step)
            for entry in self.entries
            if entry.state in ("waiting", "running")
        )

    def _look_at(self, entry: Entry) -> None:
        made = attempts(entry.trial.path, self._began)
        starts = [one for one in made if one["event"] == "start"]
        if not starts:
            return
        entry.progress = read_progress(entry.trial.path)
        if entry.state == "waiting":
            self.message(f"{entry.trial.name}: started on {starts[-1]['host']}")
        elif len(starts) > entry.starts:
            self.message(f"{entry.trial.name}: attempt {len(starts)} on {starts[-1]['host']}")
        entry.state, entry.host, entry.starts = "running", str(starts[-1]["host"]), len(starts)

    def _render(self) -> Group:
        assert self._live is not None
        room = max(4, self._live.console.height - 5)
        ordered = sorted(self.entries, key=lambda entry: _ORDER.index(entry.state))
        table = Table(box=None, pad_edge=False, expand=True)
        table.add_column("trial", no_wrap=True, ratio=3)
        for column in ("state", "steps", "return", "host"):
            table.add_column(column, no_wrap=True, justify="right" if column != "host" else "left")
        for entry in ordered[:room]:
            table.add_row(*_cells(entry), style=_STYLES.get(entry.state, "dim"))
        parts: list[Table | Text | ProgressBar] = [table]
        if len(ordered) > room:
            parts.append(Text(f"and {len(ordered) - room} more", "dim"))
        total = sum(entry.trial.config.steps for entry in self.entries)
        parts += [ProgressBar(total=total, completed=total - self._left()), Text(self.summary())]
        return Group(*parts)


def _cells(entry: Entry) -> tuple[Text, ...]:
    progress, steps = entry.progress, entry.trial.config.steps
    score = "" if progress.eval_return is None else f"{progress.eval_return:.1f}"
    state = f"{entry.state} ({entry.starts})" if entry.starts > 1 else entry.state
    words = (entry.trial.name, state, f"{progress.step:,}/{steps:,}", score, entry.host)
    return tuple(Text(clean(word)) for word in words)
