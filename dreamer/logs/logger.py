"""A run's logs: metrics.jsonl, videos, the terminal, TensorBoard and other sinks."""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.io.files import make_folder, write_file
from dreamer.logs.metrics import MetricsFile
from dreamer.logs.sinks import EventFile, Sink
from dreamer.logs.terminal import Phase, make_terminal
from dreamer.logs.video import encode_gif

_ETA_WRITES = 20  # records; the time left follows from the speed over them


class Logger(contextlib.AbstractContextManager):
    """Collects values by name and logs their means.

    Values that are not finite are left out of the mean and counted under ``nonfinite/<name>``.

    Args:
        rundir_path: The run's directory, which exists.
        tensorboard: Whether to write TensorBoard's event file.
        terminal: The kind of display: "live", "plain", or "auto".
        total_steps: Steps of the whole run, for the time left.
        sinks: Other places for metrics and videos; closed with the logger.
    """

    def __init__(
        self, rundir_path: str | os.PathLike[str], *, tensorboard: bool, terminal: str,
        total_steps: int, sinks: Sequence[Sink] = (),
    ) -> None:  # fmt: skip
        self.path = Path(rundir_path)
        self._metrics = MetricsFile(self.path / "metrics.jsonl")
        self._sinks: list[Sink] = list(sinks)
        title = "/".join(self.path.absolute().parts[1:][-3:])
        self._terminal = make_terminal(terminal, title, total_steps)
        if tensorboard:
            try:
                self._sinks.insert(0, EventFile(self.path))
            except OSError as error:
                self._give_up(EventFile, error)
        self._total_steps = total_steps
        self._end: float | None = None  # the time at which the training loop expects to end
        self._values: dict[str, list[float]] = {}
        self._start = time.monotonic()
        self._marks: deque[tuple[int, float, float | None]] = deque(maxlen=_ETA_WRITES)
        self._marks.append((0, 0.0, None))  # steps, wall time and updates of the latest records
        self._showwarning = warnings.showwarning
        warnings.showwarning = self._show_warning
        if self._metrics.torn:
            self.message(
                f"warning: {self._metrics.torn} torn line(s) of {self._metrics.path} moved to "
                "metrics.jsonl.dropped"
            )

    @property
    def wall_time(self) -> float:
        """Seconds this run has worked, in all its processes; checkpoints keep it."""
        return time.monotonic() - self._start

    def resume(self, step: int, wall_time: float) -> None:
        """Resumes from a checkpoint, or at step 0. Call it before the first `write`.

        The lines of later steps in metrics.jsonl are moved to metrics.jsonl.dropped, because the
        run writes them again. `wall_time` is that of the checkpoint.
        """
        self._metrics.rewind(step)
        self._to_sinks(lambda sink: sink.resume(step))
        self._start = time.monotonic() - wall_time
        self._marks.clear()
        self._marks.append((step, wall_time, None))
        if step:
            self._terminal.write({"step": step, "wall_time": wall_time}, None)

    def scalars(self, mapping: Mapping[str, Any]) -> None:
        """Adds one value, a number or an array of shape [], to the mean of each name."""
        for name, value in mapping.items():
            self._values.setdefault(name, []).append(float(value))

    def write(self, step: int, **counters: float) -> None:
        """Logs the means of all values since the last call.

        Adds the rates ``fps/frames`` and, with a counter `updates`, ``fps/updates``, per second
        since the last call at another step. The counters, such as episodes=12, are logged as they
        are. After a DiskFullError the next call logs these values.
        """
        step, now = int(step), self.wall_time
        finite = {
            name: int(value) if isinstance(value, (int, np.integer)) else float(value)
            for name, value in counters.items() if math.isfinite(value)
        }  # fmt: skip
        lost = {f"nonfinite/{name}": 1 for name in counters if name not in finite}
        rates = self._rates(step, now, finite.get("updates"))
        numbers = {**finite, **lost, **self._means(), **rates}
        record = {"step": step, "wall_time": round(now, 3), **numbers}
        self._metrics.append(record)
        self._values.clear()
        if self._marks[-1][0] != step:
            self._marks.append((step, now, finite.get("updates")))
        self._to_sinks(lambda sink: sink.scalars(numbers, step))
        first_step, first_time, _ = self._marks[0]
        speed = (step - first_step) / max(now - first_time, 1e-9)
        eta = max(0, self._total_steps - step) / speed if speed > 0 else None
        if self._end is not None:  # as measured
            eta = max(0.0, self._end - time.monotonic())
        self._terminal.write(record, eta)

    def video(self, name: str, frames: np.ndarray, step: int, fps: float) -> Path:
        """Writes uint8 [T, H, W, C] to videos/<name>-<step>.gif and the sinks; returns the path.

        Slashes in a name such as "eval/policy" become underscores in the file's name.
        """
        gif = encode_gif(frames, fps)
        folder = self.path / "videos"
        make_folder(folder)
        path = folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}-{int(step)}.gif"
        write_file(path, gif)
        self._to_sinks(lambda sink: sink.video(name, gif, int(step)))
        return path

    def progress(self, phase: Phase, step: int | None = None, eta: float | None = None) -> None:
        """Shows what the run is doing; None: the step and the seconds left are as before."""
        if eta is not None:
            self._end = time.monotonic() + eta
        self._terminal.progress(phase, step, eta)

    def message(self, text: str) -> None:
        """Prints a message on the terminal, above the live display."""
        self._terminal.message(text)

    def close(self) -> None:
        """Closes files, sinks and the display. Values that are not written yet are lost."""
        if warnings.showwarning == self._show_warning:
            warnings.showwarning = self._showwarning
        self._to_sinks(lambda sink: sink.close())
        self._sinks = []
        self._terminal.close()
        self._metrics.close()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _means(self) -> dict[str, float]:
        means: dict[str, float] = {}
        for name, values in self._values.items():
            finite = [value for value in values if math.isfinite(value)]
            if finite:
                means[name] = math.fsum(finite) / len(finite)
            if len(finite) < len(values):
                means[f"nonfinite/{name}"] = len(values) - len(finite)
        return means

    def _rates(self, step: int, now: float, updates: float | None) -> dict[str, float]:
        last_step, last_time, last_updates = self._marks[-1]
        if step <= last_step or now <= last_time:
            return {}
        rates = {"fps/frames": (step - last_step) / (now - last_time)}
        if updates is not None and last_updates is not None:
            rates["fps/updates"] = (updates - last_updates) / (now - last_time)
        return rates

    def _to_sinks(self, act: Callable[[Sink], None]) -> None:
        """Calls `act` with each sink. A sink that fails is given up with a warning."""
        for sink in list(self._sinks):
            try:
                act(sink)
            except Exception as error:  # a library may raise any kind
                self._give_up(type(sink), error)
                self._sinks.remove(sink)

    def _give_up(self, kind: type, error: Exception) -> None:
        name = "TensorBoard's file" if kind is EventFile else kind.__name__
        reason = getattr(error, "strerror", None) or error
        self.message(f"warning: {name} is given up: {reason}")

    def _show_warning(self, message: Any, category: Any, *place: Any, **more: Any) -> None:
        self.message(f"warning: {message}")
