"""How far a run is, read from its directory while it runs or after it has ended."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dreamer.errors import UserError
from dreamer.io.files import last_lines
from dreamer.logs.metrics import last_records
from dreamer.runs.rundir import MAY_DIFFER, RunDir
from dreamer.sweeps.plan import Trial

_CHECKPOINT = re.compile(r"\d{12,}")


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        step: Environment frames of the last metrics line; 0 without one.
        eval_return: Return of the newest evaluation.
        evaluated: Step of the newest evaluation; -1 without one.
        saved: Step of the newest checkpoint; -1 without one.
    """

    step: int = 0
    eval_return: float | None = None
    evaluated: int = -1
    saved: int = -1

    def finished(self, steps: int) -> bool:
        """Returns whether a run of so many steps is finished.

        A run ends with an evaluation and a checkpoint, both at its last step.
        """
        return min(self.saved, self.evaluated) >= steps


def read_progress(run: Path) -> Progress:
    """Reads the last lines of a run's metrics and the names of its checkpoints."""
    step, eval_return, evaluated = 0, None, -1
    for record in last_records(run / "metrics.jsonl"):
        step = record["step"]
        value = record.get("eval/return")
        if isinstance(value, int | float):
            eval_return, evaluated = float(value), step
    return Progress(step, eval_return, evaluated, _newest_checkpoint(run / "checkpoints"))


def check_same_config(trial: Trial) -> None:
    """Checks that a trial's directory is new or was made with the same config.

    Raises:
        UserError: It was made with another config; the message names the keys that differ.
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


def last_output(path: Path) -> str:
    """Returns the last line of a log that is not empty, at most 300 characters of it."""
    lines = [line.decode("utf-8", "replace").strip() for line in last_lines(path)]
    return next((line[:300] for line in reversed(lines) if line), "")


def _newest_checkpoint(folder: Path) -> int:
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return -1
    return max((int(name) for name in names if _CHECKPOINT.fullmatch(name)), default=-1)
