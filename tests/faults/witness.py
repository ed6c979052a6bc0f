"""Looks at a run after each end of its process: what was complete must be there, and stay."""

import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from fault_runs import Harm, newest, run_of, start

from dreamer.data.episodes import EpisodeFile, episode_uid, moved_aside
from dreamer.training.collector import episode_seed

AMPLE = 20_000  # episodes, more than any of these runs begins


class Witness:
    """Starts a run again and again, and remembers what it must still hold after each process.

    Args:
        folder: Takes the runs, and what their environments note (`faulty_env.Noted`).

    Attributes:
        logdir: The run's logdir.
        notes: What the environments of the newest process note.
        episodes: By id, facts of an episode's file that change if the file changes.
        begun: Ids of all episodes that have begun, by the environments' own notes.
        ended: Ids of those that ended before another one of the same process began.
        harmed: Ids of the episodes whose files the test itself has damaged.
        checkpoint: Step of the newest checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self.logdir, self.notes = folder / "runs", folder
        self.episodes: dict[str, tuple[int, int, int]] = {}
        self.begun: set[str] = set()
        self.ended: set[str] = set()
        self.harmed: set[str] = set()
        self.checkpoint = self._processes = 0

    @contextmanager
    def started(
        self, words: list[str], *harms: Harm, **options: Any
    ) -> Iterator[subprocess.Popen[str]]:
        """The next process, which ends with the context at the latest."""
        self.notes = self.logdir.parent / f"notes{self._processes}"
        self._processes += 1
        self.notes.touch()
        process = start(words, *harms, DREAMER_TEST_NOTES=str(self.notes), **options)
        try:
            yield process
        finally:
            process.kill()
            process.wait(500)

    def look(self, lost: int = 0, checkpoints: bool = True) -> None:
        """Looks at the run after a process.

        Args:
            lost: So many of its workers were killed, perhaps with an episode's end unsaid.
            checkpoints: Whether none is damaged.
        """
        if not list(self.logdir.glob("*/*/*/config.yaml")):
            return
        run = run_of(self.logdir)
        begun, ended = noted(self.notes)
        self._look_at_episodes(run / "episodes")
        missing = ended - self.episodes.keys()
        assert len(missing) <= lost, f"{missing} had ended and are not there"
        self.begun |= begun
        self.ended |= ended
        if checkpoints and any((run / "checkpoints").glob("0*")):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                step, _, _ = newest(run)
            assert step >= self.checkpoint
            self.checkpoint = step

    def harm(self, path: Path) -> None:
        """Takes note that the test has damaged the file of an episode."""
        self.harmed.add(episode_uid(path))
        self.episodes[episode_uid(path)] = _stamp(path)

    def _look_at_episodes(self, folder: Path) -> None:
        found: dict[str, tuple[int, int, int]] = {}
        for path in folder.glob("*.npz"):
            uid = episode_uid(path)
            assert uid not in found, f"two files are of {uid}"
            found[uid] = _stamp(path)
            if uid not in self.episodes:
                file = EpisodeFile(path)
                file.check(file.keys)
        aside = set(moved_aside(folder / "damaged"))
        assert aside <= self.harmed and not aside & found.keys()
        for uid, stamp in self.episodes.items():
            assert uid in aside or found.get(uid) == stamp, f"{uid} is gone, or not what it was"
        self.episodes |= found


def noted(notes: Path) -> tuple[set[str], set[str]]:
    """Ids of the episodes that the environments of one process say have begun; and of those that
    had ended before another one began.

    The run stores an episode before any other begins in its worker: so these must be on the disk,
    whenever the process was killed.
    """
    ids = _ids()
    begun: set[str] = set()
    ended: set[str] = set()
    just_ended: set[str] = set()
    for line in notes.read_text(encoding="utf-8").splitlines():
        what, seed = line.split()
        uid = ids.get(int(seed))
        if uid is None:  # of an evaluation
            continue
        if what == "begun":
            begun.add(uid)
            ended |= just_ended
        else:
            just_ended.add(uid)
    return begun, ended


@cache
def _ids() -> dict[int, str]:
    """The ids of a run's episodes by their seeds; the run's is 0."""
    return {episode_seed(0, number): f"s0e{number:08d}" for number in range(AMPLE)}


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
