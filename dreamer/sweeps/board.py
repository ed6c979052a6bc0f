"""What a sweep shows: every trial's state, progress and return, and the time left."""

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
from dreamer.sweeps.attempts import attempts
from dreamer.sweeps.plan import Trial
from dreamer.sweeps.progress import Progress, read_progress
from dreamer.system.streams import standard_output

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
        clock: tells seconds.
    """

    def __init__(
        self, skipped: Sequence[Trial], trials: Sequence[Trial], kind: str, slots: int,
        every: float = 2.0, lines_every: float = 60.0, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.entries = [Entry(t, "skipped", read_progress(t.path)) for t in skipped]
        self.entries += [Entry(t, "waiting", read_progress(t.path)) for t in trials]
        self._by_path = {entry.trial.path: entry for entry in self.entries}
        self._slots, self._every, self._lines_every = slots, every, lines_every
        self._began = time.time()
        self._clock = clock
        self._looked = self._said = clock()
        self._marks: deque[tuple[float, int]] = deque([(self._looked, self._left())], maxlen=900)
        self._stream = standard_output()
        able = self._stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb")
        self._console = Console(file=self._stream, force_terminal=True)  # type: ignore[arg-type]
        self._live: Live | None = None
        if kind == "live" or (kind == "auto" and able):
            self._live = Live(
                get_renderable=self._render, console=self._console, refresh_per_second=1
            )
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
        now = self._clock()
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
            self._console.print(Text(clean(text)))
        else:
            self._stream.write(clean(text) + "\n")
            self._stream.flush()

    def summary(self) -> str:
        """How many trials are where, and the time left."""
        counts = Counter(entry.state for entry in self.entries)
        listed = ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state])
        done, total = self._done()
        percent = 100 * done / max(total, 1)
        return f"{listed}; {percent:.1f}% of {total:,} steps; ETA {duration(self.eta())}"

    def eta(self) -> float | None:
        """Seconds to the end, at the speed of the last half hour; None while unknown."""
        (then, before), (now, after) = self._marks[0], self._marks[-1]
        left = self._left()
        if not left:
            return 0.0
        return left * (now - then) / (before - after) if before > after else None

    def close(self) -> None:
        """Leaves the last table standing and gives the terminal back."""
        if self._live is not None:
            self._live.stop()

    def _done(self) -> tuple[int, int]:
        """Steps made, and steps in all."""
        total = [entry.trial.config.steps for entry in self.entries]
        made = [entry.progress.step for entry in self.entries]
        return sum(map(min, made, total)), sum(total)

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
        if len(starts) > entry.starts:
            again = f"attempt {len(starts)}" if len(starts) > 1 else "started"
            self.message(f"{entry.trial.name}: {again} on {starts[-1]['host']}")
        # Between two attempts it waits for room again, as it did before the first.
        entry.state = "running" if made[-1]["event"] == "start" else "waiting"
        entry.host, entry.starts = str(starts[-1]["host"]), len(starts)

    def _render(self) -> Group:
        room = max(4, self._console.height - 5)
        ordered = sorted(self.entries, key=lambda entry: _ORDER.index(entry.state))
        table = Table(box=None, pad_edge=False, expand=True)
        table.add_column("trial", no_wrap=True, ratio=3)
        for column in ("state", "steps", "return", "host"):
            table.add_column(column, no_wrap=True, justify="right" if column != "host" else "left")
        for entry in ordered[:room]:
            table.add_row(*_cells(entry), style=_STYLES.get(entry.state, "dim"))
        parts: list[Table | Text] = [table]
        if len(ordered) > room:
            parts.append(Text(f"and {len(ordered) - room} more", "dim"))
        done, total = self._done()
        foot = Table.grid(expand=True)  # a bar by itself would not end its line
        foot.add_row(ProgressBar(total=total, completed=done))
        foot.add_row(Text(self.summary()))
        return Group(*parts, foot)


def _cells(entry: Entry) -> tuple[Text, ...]:
    progress, steps = entry.progress, entry.trial.config.steps
    score = "" if progress.eval_return is None else f"{progress.eval_return:.1f}"
    state = f"{entry.state} ({entry.starts})" if entry.starts > 1 else entry.state
    words = (entry.trial.name, state, f"{progress.step:,}/{steps:,}", score, entry.host)
    return tuple(Text(clean(word)) for word in words)
