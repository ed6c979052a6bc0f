"""What a trial's directory tells from outside, while its run works or after it has ended."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamer.errors import UserError
from dreamer.io.files import open_to_read
from dreamer.logs.metrics import step_of
from dreamer.runs.rundir import MAY_DIFFER, RunDir
from dreamer.sweeps.plan import Trial

_TAIL = 1 << 17  # bytes; lines are about a kilobyte, evaluations every 10 lines or so
_CHECKPOINT = re.compile(r"\d{12,}")


@dataclass(frozen=True)
class Progress:
    """How far a run has come by its own files.

    Attributes:
        step: environment frames of the last metrics line; 0 where there is none.
        eval_return: of the last evaluation among the last lines.
        evaluated: the step of that evaluation; -1 without one.
        saved: step of the newest checkpoint; -1 without one.
    """

    step: int = 0
    eval_return: float | None = None
    evaluated: int = -1
    saved: int = -1

    def finished(self, steps: int) -> bool:
        """Whether nothing is left to do for a run of that many steps.

        A run ends with an evaluation and a checkpoint, both at its last step.
        """
        return min(self.saved, self.evaluated) >= steps


def read_progress(path: Path) -> Progress:
    """Reads the end of a run's metrics and the names of its checkpoints."""
    step, eval_return, evaluated = 0, None, -1
    for line in _last_lines(path / "metrics.jsonl"):
        if step_of(line) is None:
            continue
        record: dict[str, Any] = json.loads(line)
        step = record["step"]
        value = record.get("eval/return")
        if isinstance(value, int | float):
            eval_return, evaluated = float(value), step
    return Progress(step, eval_return, evaluated, _newest_checkpoint(path / "checkpoints"))


def check_same_config(trial: Trial) -> None:
    """Refuses a directory whose run was made by another config, before anything is started.

    Raises:
        UserError: the keys that differ, as the run itself would say it.
    """
    if not (trial.path / "config.yaml").exists():
        return
    _, config = RunDir.load(trial.path)
    old, new = config.flat(), trial.config.flat()
    differing = [
        f"{key} is {old.get(key)!r}, now {new[key]!r}"
        for key in new
        if old.get(key) != new[key] and not MAY_DIFFER.fullmatch(key)
    ]
    if differing:
        raise UserError(
            f"{trial.path} was made with another config: {', '.join(differing)}; use the same "
            "values, or another --method or --logdir"
        )


def last_words(path: Path, lines: int = 1) -> str:
    """The last lines of a log that say something, at most 300 characters of each."""
    said = [line.decode("utf-8", "replace").strip()[:300] for line in _last_lines(path)]
    return "\n".join([line for line in said if line][-lines:])


def _last_lines(path: Path) -> list[bytes]:
    """The lines at a file's end, the first of them perhaps cut; none if it cannot be read."""
    try:
        with open(open_to_read(path), "rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            return file.read(_TAIL).splitlines(keepends=True)
    except OSError:
        return []


def _newest_checkpoint(folder: Path) -> int:
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return -1
    return max((int(name) for name in names if _CHECKPOINT.fullmatch(name)), default=-1)
