"""A run's display: a live panel on a terminal, plain lines elsewhere.

Both show the records of metrics.jsonl of any agent: each ``<name>/return`` is shown as a return,
each ``<name>_loss`` as a loss.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from dreamer.system.streams import LastingStream, standard_output

# Control characters can move the cursor or hide text, and a message may quote a file's name.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def make_terminal(kind: str, title: str, total_steps: int) -> PlainTerminal:
    """Returns a display on the standard output.

    Args:
        kind: "live", "plain", or "auto": live on a terminal that can show it.
        title: The run's name, such as ``dmc_walker_walk/dreamer/0``.
        total_steps: Steps of the whole run.
    """
    if kind not in ("auto", "live", "plain"):
        raise ValueError(f"terminal: expected auto, live or plain, got {kind!r}")
    stream = standard_output()
    able = stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb")
    if kind == "live" or (kind == "auto" and able):
        return LiveTerminal(stream, title, total_steps)
    return PlainTerminal(stream, total_steps)


class PlainTerminal:
    """A display of one line of text for each record."""

    def __init__(self, stream: LastingStream, total_steps: int) -> None:
        self._stream = stream
        self._total = total_steps

    def write(self, record: Mapping[str, Any], eta: float | None) -> None:
        """Shows a record of metrics.jsonl; `eta` is the time left in seconds, if it is known."""
        step, total, losses = record["step"], self._total, _losses(record)
        parts = [f"step {step:,}/{total:,} ({100 * step / max(total, 1):.1f}%)"]
        parts += [f"{name} {value}" for name, value in _returns(record).items()]
        if losses:
            parts.append("loss: " + " ".join(f"{name} {loss}" for name, loss in losses.items()))
        parts += [f"{name} {value}" for name, value in _rates(record).items()]
        self.message("  ".join([*parts, f"ETA {duration(eta)}"]))

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
        self._latest: dict[str, Any] = {"step": 0, "wall_time": 0.0}
        self._written = time.monotonic()
        self._eta: float | None = None
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=2)
        self._live.start()

    def write(self, record: Mapping[str, Any], eta: float | None) -> None:
        # A value is shown until a newer one comes, because evaluations are rarer than records.
        self._latest = {**self._latest, **record}
        self._eta, self._written = eta, time.monotonic()
        self._progress.update(self._task, completed=record["step"])

    def message(self, text: str) -> None:
        self._console.print(Text(clean(text)))

    def close(self) -> None:
        self._live.stop()

    def _render(self) -> Panel:
        # The clocks run on between records, which may be minutes apart.
        since = time.monotonic() - self._written
        eta = None if self._eta is None else max(0.0, self._eta - since)
        latest = self._latest
        names = [name for name in ("updates", "episodes") if name in latest]
        shown: dict[str, dict[str, str]] = {
            "time": {"elapsed": duration(latest["wall_time"] + since), "ETA": duration(eta)},
            "done": {name: f"{latest[name]:,}" for name in names},
            "speed": _rates(latest),
            "return": _returns(latest),
            "loss": _losses(latest),
        }
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="dim", no_wrap=True)
        for title, values in shown.items():
            rows.add_row(title, _line(values))
        return Panel(Group(self._progress, rows), title=Text(self._title), title_align="left")


def duration(seconds: float | None) -> str:
    """Returns hours, minutes and seconds, as 1:02:03; "?" for None."""
    if seconds is None:
        return "?"
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{left:02}"


def clean(text: str) -> str:
    """Returns the text without control characters, except for line ends and tabs."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _line(values: Mapping[str, str]) -> Text:
    pairs = [Text.assemble((f"{name} ", "dim"), (value, "bold")) for name, value in values.items()]
    return Text("   ").join(pairs) if pairs else Text("none yet", "dim")


def _returns(record: Mapping[str, Any]) -> dict[str, str]:
    """Returns by name: eval/return is "eval return"."""
    names = [name for name in record if name.rpartition("/")[2] == "return"]
    return {name.replace("/", " "): f"{record[name]:.1f}" for name in names}


def _losses(record: Mapping[str, Any]) -> dict[str, str]:
    """Losses by name: model/actor_loss is "actor". Those of the three optimizers come first."""
    short = {
        name.rpartition("/")[2].removesuffix("_loss"): value
        for name, value in record.items()
        if name.endswith("_loss") and not name.startswith("nonfinite/")
    }
    first = [name for name in ("model", "actor", "value") if name in short]
    return {
        name: f"{short[name]:,.0f}" if abs(short[name]) >= 1000 else f"{short[name]:.3g}"
        for name in dict.fromkeys([*first, *short])
    }


def _rates(record: Mapping[str, Any]) -> dict[str, str]:
    shown = {"fps/frames": "frames/s", "fps/updates": "updates/s"}
    rates = {label: record[name] for name, label in shown.items() if name in record}
    return {label: f"{rate:.0f}" if rate >= 100 else f"{rate:.2g}" for label, rate in rates.items()}
