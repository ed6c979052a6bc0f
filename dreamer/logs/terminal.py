"""What a run shows on the terminal: a live display, or plain lines where there is no terminal.

Both take the records of metrics.jsonl and know no agent: whatever is called ``<any>/return`` is
shown as a return, whatever is called ``<any>_loss`` as a loss.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dreamer.system.streams import LastingStream, standard_output

# Control characters could move the cursor or hide text; a message may quote a file's name.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Terminal(Protocol):
    """Where records and messages are shown."""

    def resume(self, step: int, wall_time: float) -> None:
        """Says where a resumed run stands: environment frames, and seconds worked."""

    def write(self, record: Mapping[str, Any], eta: float | None) -> None:
        """Shows the record of one log write; `eta` is in seconds, None while unknown."""

    def message(self, text: str) -> None:
        """Shows a message for good."""

    def close(self) -> None:
        """Leaves the terminal as it was found."""


def make_terminal(kind: str, title: str, total_steps: int) -> Terminal:
    """The live display or plain lines on the standard output.

    Args:
        kind: "live", "plain", or "auto": live if the standard output is a terminal that can.
        title: what runs, e.g. ``dmc_walker_walk/dreamer/0``.
        total_steps: where the run ends.
    """
    if kind not in ("auto", "live", "plain"):
        raise ValueError(f"terminal: expected auto, live or plain, got {kind!r}")
    stream = standard_output()
    able = stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb")
    if kind == "live" or (kind == "auto" and able):
        return LiveTerminal(stream, title, total_steps)
    return PlainTerminal(stream, total_steps)


class PlainTerminal:
    """One line a log write; nothing but text, so that a log file stays readable."""

    def __init__(self, stream: LastingStream, total_steps: int) -> None:
        self._stream = stream
        self._total = total_steps

    def resume(self, step: int, wall_time: float) -> None:
        pass  # The first line says where the run stands.

    def write(self, record: Mapping[str, Any], eta: float | None) -> None:
        step = record["step"]
        parts = [f"step {step:,}/{self._total:,} ({_percent(step, self._total)})"]
        parts += [f"{name} {value}" for name, value in _returns(record).items()]
        losses = [f"{name} {value}" for name, value in _losses(record).items()]
        parts += ["loss: " + " ".join(losses)] if losses else []
        parts += [f"{name} {value}" for name, value in _rates(record).items()]
        parts.append(f"ETA {duration(eta)}")
        self.message("  ".join(parts))

    def message(self, text: str) -> None:
        self._stream.write(clean(text) + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._stream.flush()


class LiveTerminal:
    """A panel that stays at the bottom; messages, prints and warnings appear above it."""

    def __init__(self, stream: LastingStream, title: str, total_steps: int) -> None:
        self._console = Console(file=stream, force_terminal=True)  # type: ignore[arg-type]
        self._title = title
        self._total = total_steps
        self._latest: dict[str, Any] = {"step": 0, "wall_time": 0.0}
        self._written = time.monotonic()
        self._return_steps: dict[str, int] = {}
        self._eta: float | None = None
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=2)
        self._live.start()

    def resume(self, step: int, wall_time: float) -> None:
        self.write({"step": step, "wall_time": wall_time}, None)

    def write(self, record: Mapping[str, Any], eta: float | None) -> None:
        # Values stay on display until newer ones come: evaluations are rarer than log writes.
        self._latest = {**self._latest, **record}
        self._return_steps.update(dict.fromkeys(_returns(record), record["step"]))
        self._eta = eta
        self._written = time.monotonic()

    def message(self, text: str) -> None:
        self._console.print(Text(clean(text)))

    def close(self) -> None:
        self._live.stop()

    def _render(self) -> Panel:
        latest, step = self._latest, self._latest["step"]
        bar = Table.grid(expand=True, padding=(0, 1))
        bar.add_column(ratio=1)
        bar.add_column(justify="right", no_wrap=True)
        progress = f"{step:,} / {self._total:,} steps  {_percent(step, self._total)}"
        bar.add_row(ProgressBar(total=self._total, completed=min(step, self._total)), progress)
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="dim", no_wrap=True)
        rows.add_column()
        # The clocks go on between writes, which may be minutes apart.
        since = time.monotonic() - self._written
        eta = None if self._eta is None else max(0.0, self._eta - since)
        clocks = {"elapsed": duration(latest["wall_time"] + since), "ETA": duration(eta)}
        rows.add_row("time", _line(clocks))
        rows.add_row("done", _line(_counts(latest)))
        rows.add_row("speed", _line(_rates(latest)))
        returns = {
            name: f"{value} (at {self._return_steps[name]:,})"
            for name, value in _returns(latest).items()
        }
        rows.add_row("return", _line(returns))
        rows.add_row("loss", _line(_losses(latest)))
        return Panel(Group(bar, rows), title=Text(self._title), title_align="left")


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds, as 1:02:03; "?" if unknown."""
    if seconds is None:
        return "?"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}"


def clean(text: str) -> str:
    """The text without control characters but for line ends and tabs."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _line(values: Mapping[str, str]) -> Text:
    pairs = [Text.assemble((f"{name} ", "dim"), (value, "bold")) for name, value in values.items()]
    return Text("   ").join(pairs) if pairs else Text("none yet", "dim")


def _returns(record: Mapping[str, Any]) -> dict[str, str]:
    """train/return and eval/return under the names "train return" and "eval return"."""
    names = [name for name in record if name.rpartition("/")[2] == "return"]
    return {name.replace("/", " "): f"{record[name]:.1f}" for name in names}


def _losses(record: Mapping[str, Any]) -> dict[str, str]:
    """model/actor_loss as "actor"; those of the three optimizers come first."""
    names = [
        name for name in record if name.endswith("_loss") and not name.startswith("nonfinite/")
    ]
    short = {name.rpartition("/")[2].removesuffix("_loss"): record[name] for name in names}
    first = [name for name in ("model", "actor", "value") if name in short]
    return {name: _compact(short[name]) for name in dict.fromkeys([*first, *short])}


def _compact(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _counts(record: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{record[name]:,}" for name in ("updates", "episodes") if name in record}


def _rates(record: Mapping[str, Any]) -> dict[str, str]:
    shown = {"fps/frames": "frames/s", "fps/updates": "updates/s"}
    rates = {label: record[name] for name, label in shown.items() if name in record}
    return {label: f"{rate:.0f}" if rate >= 100 else f"{rate:.2g}" for label, rate in rates.items()}


def _percent(step: int, total: int) -> str:
    return f"{100 * step / max(total, 1):.1f}%"
