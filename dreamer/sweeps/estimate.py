"""Hours that trials will take, from what `python -m dreamer.benchmark` has measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamer.config.config import Config
from dreamer.errors import UserError
from dreamer.training.schedule import UpdateSchedule

COMMAND = "python -m dreamer.benchmark --json speed.json"
# What an update's and a frame's time depend on, beside the task.
_COSTLY = (
    *("train.batch_size", "train.batch_length", "behavior.horizon"),
    *("loss.representation", "loss.overshooting"),
)
_COSTLY_SECTIONS = ("encoder", "decoder", "rssm", "reward", "discount", "value", "actor")


@dataclass(frozen=True)
class Speed:
    """What one machine does.

    Attributes:
        seconds: of an update, by precision; the fastest counts where a config says auto.
        frames: environment frames a second, with the policy in the loop.
        task: that was measured.
        config: keys that it was measured with, by dotted name; empty where the file has none.
    """

    seconds: Mapping[str, float]
    frames: float
    task: str
    config: Mapping[str, Any]

    def hours(self, config: Config, step: int = 0) -> float:
        """Hours from `step` to the end of a run, one thing after the other, evaluations aside.

        Args:
            config: Dreamer's: what compared agents take is not in the file.
            step: Where the run is.
        """
        train = config.train
        schedule = UpdateSchedule(train.prefill, train.pretrain, train.every, train.updates)
        updates = schedule.due(config.steps) - schedule.due(step)
        seconds = self.seconds.get(config.precision) or min(self.seconds.values())
        return (updates * seconds + max(0, config.steps - step) / self.frames) / 3600

    def differs(self, config: Config) -> list[str]:
        """Keys on which the cost of an update depends and which were measured at other values."""
        flat = config.flat()
        return [
            key for key, value in self.config.items()
            if (key in _COSTLY or key.partition(".")[0] in _COSTLY_SECTIONS)
            and key in flat and flat[key] != value
        ]  # fmt: skip


def read_speed(path: Path) -> Speed:
    """Reads a benchmark's figures.

    Raises:
        UserError: no such file, or without the figures that are needed.
    """
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
        seconds = {name: float(found["seconds"]) for name, found in figures["update"].items()}
        frames = float(figures["env"]["collect_steps_per_second"])
        config = figures.get("config", {})
        if not seconds or min(*seconds.values(), frames) <= 0 or not isinstance(config, dict):
            raise ValueError("a figure is not above zero")
        return Speed(seconds, frames, str(figures.get("task", "?")), config)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; make it with: {COMMAND}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} has no measured speed of updates and environments ({error!r}); make it "
            f"with: {COMMAND}"
        ) from error
