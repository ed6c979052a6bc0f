"""TensorBoard's event files, a sink. Imported late, because TensorBoard's modules take long."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class EventFile:
    """One of TensorBoard's event files. Each process of a run makes a new one.

    TensorBoard's complete writer opens its file through TensorFlow. This one opens an ordinary
    file, so that a process that only logs does not import TensorFlow.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        stamp = f"{time.time_ns() // 1000:016d}.{socket.gethostname()}.{os.getpid()}"
        path = Path(folder) / f"events.out.tfevents.{stamp}"
        self._file = open(path, "xb")  # noqa: SIM115  close() closes it
        self._records = RecordWriter(self._file)
        self._add(Event(file_version="brain.Event:2"))

    def resume(self, step: int) -> None:
        """Tells TensorBoard to ignore the points of later steps than `step` in earlier files."""
        started = SessionLog(status=SessionLog.SessionStatus.START)
        self._add(Event(step=step + 1, session_log=started))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds one point to the curve of each name."""
        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(Event(step=step, summary=Summary(value=points)))

    def video(self, name: str, gif: bytes, step: int) -> None:
        """Adds a GIF; TensorBoard's page of images plays it."""
        width, height = (int.from_bytes(gif[at : at + 2], "little") for at in (6, 8))
        image = Summary.Image(encoded_image_string=gif, width=width, height=height, colorspace=3)
        self._add(Event(step=step, summary=Summary(value=[Summary.Value(tag=name, image=image)])))

    def close(self) -> None:
        self._file.close()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
        self._file.flush()
