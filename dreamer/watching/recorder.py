"""Records what the page shows, as a GIF or an MP4."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from dreamer.logs.video import check_video_name, write_video
from dreamer.system.messages import Message
from dreamer.watching.scene import Scene
from dreamer.watching.session import Session

MOST_FRAMES = 600  # of a recording from the page; a frame of one side has 1 MB


class Recorder:
    """Draws one frame a step, while it is told to, and makes a file of them.

    Attributes:
        running: Whether it records now.
        file: The newest recording: a name, and the content.
    """

    def __init__(self, most: int = MOST_FRAMES) -> None:
        self.running, self.file = False, None  # type: bool, tuple[str, bytes] | None
        self._scene, self._most, self._ending, self._speed = Scene(), most, ".gif", 15
        self._frames: list[np.ndarray] = []

    @property
    def full(self) -> bool:
        """Whether the recording has as many frames as it may have."""
        return self.running and len(self._frames) >= self._most

    def begin(self, ending: str) -> None:
        """Begins a recording; UserError if there is no such kind of file, or ffmpeg is missing."""
        self._ending = check_video_name(f"dream{ending}")
        self._frames, self.running, self._speed = [], True, self._scene.speed

    def take(self, message: Message) -> None:
        """Takes a message that the page gets, too."""
        if self._scene.take(message) and self.running and not self.full:
            frame = self._scene.draw()
            # Another number of sides would need another size.
            if not self._frames or frame.shape == self._frames[0].shape:
                self._frames.append(frame)

    def end(self) -> str:
        """Makes the file; returns its name, "" if there was no step to record."""
        frames, self._frames, self.running = self._frames, [], False
        if not frames:
            return ""
        with tempfile.TemporaryDirectory(prefix="dreamer_watch_") as folder:
            path = Path(folder, f"dream{self._ending}")
            write_video(path, np.stack(frames), self._speed)
            self.file = path.name, path.read_bytes()
        return path.name


def write_recording(session: Session, path: str | os.PathLike[str], seconds: int) -> None:
    """Lets the session act, and writes what the page would show; complete or not at all.

    Raises:
        UserError: The environment has failed, or the file cannot be written.
    """
    scene, messages, count = Scene(), session.start(), 0
    frames = np.empty(0, np.uint8)
    while count < (length := seconds * session.speed):
        shown = False
        for message in messages:
            shown = scene.take(message) or shown
        session.raise_failure()
        if shown:
            frame = scene.draw()
            if not count:  # all at once, because they are large
                frames = np.empty((length, *frame.shape), np.uint8)
            frames[count] = frame
            count += 1
        messages = session.tick()
    write_video(path, frames, session.speed)
