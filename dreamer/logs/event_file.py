"""TensorBoard's event files, written through its own record and message classes.

TensorBoard's ready-made writer opens its file by way of TensorFlow; here an ordinary file does, so
that a process that only logs need not import it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class EventFile:
    """One events.* file, new for each process that writes into the run's directory.

    Args:
        folder: the run's directory.

    Raises:
        OSError: there is no room for it, or the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        stamp = f"{time.time_ns() // 1000:016d}.{socket.gethostname()}.{os.getpid()}"
        self.path = Path(folder) / f"events.out.tfevents.{stamp}"
        self._file = open(self.path, "xb")  # noqa: SIM115  closed by close()
        self._records = RecordWriter(self._file)
        try:
            self._add(Event(file_version="brain.Event:2"))
        except BaseException:
            with contextlib.suppress(OSError):  # closing writes what is left
                self._file.close()
            raise

    def resume(self, step: int) -> None:
        """Tells TensorBoard to forget what earlier files hold of later steps than `step`."""
        started = SessionLog(status=SessionLog.SessionStatus.START)
        self._add(Event(step=step + 1, session_log=started))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds one point to the curve of each name."""
        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(Event(step=step, summary=Summary(value=points)))

    def video(self, name: str, gif: bytes, step: int) -> None:
        """Adds a GIF, which TensorBoard's image page plays."""
        width, height = (int.from_bytes(gif[at : at + 2], "little") for at in (6, 8))
        image = Summary.Image(encoded_image_string=gif, width=width, height=height, colorspace=3)
        self._add(Event(step=step, summary=Summary(value=[Summary.Value(tag=name, image=image)])))

    def close(self) -> None:
        self._file.close()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
        self._file.flush()
