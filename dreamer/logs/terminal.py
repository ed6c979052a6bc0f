"""A run's display: a live panel on a terminal, plain lines elsewhere.

Both show the records of metrics.jsonl of any agent: each ``<name>/return`` is shown as a return,
each ``<name>_loss`` as a loss.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from dreamer.system.streams import LastingStream, standard_output

# Control characters can move the cursor or hide text, and a message may quote a file's name.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def make_terminal(kind: str, title: str, total_steps: int) -> PlainTerminal:
    """Returns a display on the standard output for the run named `title`; see `is_live`."""
    stream = standard_output()
    if is_live(kind, stream):
        return LiveTerminal(stream, title, total_steps)
    return PlainTerminal(stream, total_steps)


def is_live(kind: str, stream: LastingStream) -> bool:
    """Whether a display is live: `kind` is "live", or "auto" on a terminal that can show it."""
    able = stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb")
    return kind == "live" or (kind == "auto" and able)


@dataclass(frozen=True)
class Phase:
    """What a run is doing, and how far it is."""

    name: str  # such as "collecting"
    done: int = 0
    total: int = 0  # 0: not counted
    unit: str = ""  # what is counted


class PlainTerminal:
    """A display of one line of text for each record."""

    def __init__(self, stream: LastingStream, total_steps: int) -> None:
        self._stream = stream
        self._total = total_steps
        self._phases: set[str] = set()  # that were shown

    def progress(self, phase: Phase, step: int | None, eta: float | None) -> None:
        """Shows what the run is doing; None: `step`, `eta` (seconds left) are as before.

        In plain lines, each kind of phase is shown when it first begins.
        """
        if phase.name not in self._phases:
            self._phases.add(phase.name)
            self.message(f"{phase.name}{f', {phase.total:,} {phase.unit}' if phase.total else ''}")

    def write(self, record: Mapping[str, Any], eta: float | None) -> None:
        """Shows a record of metrics.jsonl; `eta` is the time left in seconds, if it is known."""
        step, total = record["step"], self._total
        done = f"step {step:,}/{total:,} ({100 * min(1, step / max(total, 1)):.1f}%)"
        self.message("  ".join([done, *_lines(record), f"ETA {duration(eta)}"]))

    def message(self, text: str) -> None:
        """Shows a message that stays."""
        self._stream.write(clean(text) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Ends the display."""
        self._stream.flush()


class LiveTerminal(PlainTerminal):
    """A panel at the bottom of the terminal; messages, prints and warnings appear above it."""

    def __init__(self, stream: LastingStream, title: str, total_steps: int) -> None:
        super().__init__(stream, total_steps)
        self._console = Console(file=stream, force_terminal=True)  # type: ignore[arg-type]
        self._title = title
        counted = "{task.completed:,} / {task.total:,} steps  {task.percentage:.1f}%"
        self._progress = Progress(BarColumn(None), TextColumn(counted), expand=True)
        self._task = self._progress.add_task("", total=max(total_steps, 1))
        self._latest: dict[str, Any] = {}
        self._phase = ""
        self._began = self._estimated = time.monotonic()
        self._earlier = 0.0  # seconds that earlier processes of the run have worked
        self._eta: float | None = None
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=2)
        self._live.start()

    def progress(self, phase: Phase, step: int | None, eta: float | None) -> None:
        counted = f" {phase.done:,} / {phase.total:,} {phase.unit}" if phase.total else ""
        self._phase = f"{phase.name}{counted}"
        if step is not None:
            self._progress.update(self._task, completed=min(step, self._total))
        if eta is not None:
            self._eta, self._estimated = eta, time.monotonic()

    def write(self, record: Mapping[str, Any], eta: float | None) -> None:
        # A value is shown until a newer one comes, because evaluations are rarer than records.
        self._latest = {**self._latest, **record}
        self._eta, self._estimated = eta, time.monotonic()
        # The clock began with this display, before the run's, so that setting up counts, too.
        since = self._estimated - self._began
        self._earlier = max(self._earlier, record["wall_time"] - since)
        self._progress.update(self._task, completed=min(record["step"], self._total))

    def message(self, text: str) -> None:
        self._console.print(Text(clean(text)))

    def close(self) -> None:
        # The last panel stays on the screen, unless it says nothing yet. No phase goes on.
        self._live.transient, self._phase = not self._latest, ""
        self._live.stop()

    def _render(self) -> Panel:
        # The clocks run on between records, which may be minutes apart.
        now = time.monotonic()
        eta = None if self._eta is None else max(0.0, self._eta - (now - self._estimated))
        elapsed = duration(self._earlier + now - self._began)
        clocks = f"elapsed {elapsed}  ETA {duration(eta)}  {self._phase}"
        names = [name for name in ("updates", "episodes") if name in self._latest]
        counts = "  ".join(f"{name} {self._latest[name]:,}" for name in names)
        text = Text("\n".join(filter(None, [clocks, counts, *_lines(self._latest)])))
        return Panel(Group(self._progress, text), title=Text(self._title), title_align="left")


def duration(seconds: float | None) -> str:
    """Returns hours, minutes and seconds, as 1:02:03; "?" for None."""
    if seconds is None:
        return "?"
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{left:02}"


def clean(text: str) -> str:
    """Returns the text without control characters, except for line ends and tabs."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _lines(record: Mapping[str, Any]) -> list[str]:
    """Returns the returns, the losses and the rates of a record, each kind as a line of text."""
    returns = [name for name in record if name.rpartition("/")[2] == "return"]
    losses = {
        name.rpartition("/")[2].removesuffix("_loss"): value
        for name, value in record.items()
        if name.endswith("_loss") and not name.startswith("nonfinite/")
    }
    # The losses of the three optimizers come first.
    names = dict.fromkeys([*(n for n in ("model", "actor", "value") if n in losses), *losses])
    shown = [
        f"{n} {losses[n]:,.0f}" if abs(losses[n]) >= 1000 else f"{n} {losses[n]:.3g}" for n in names
    ]
    rates = {n: record[f"fps/{n}"] for n in ("frames", "updates") if f"fps/{n}" in record}
    return list(filter(None, (
        "  ".join(f"{name.replace('/', ' ')} {record[name]:.1f}" for name in returns),
        f"loss: {' '.join(shown)}" if shown else "",
        "  ".join(f"{n}/s {v:.0f}" if v >= 100 else f"{n}/s {v:.2g}" for n, v in rates.items()),
    )))  # fmt: skip
