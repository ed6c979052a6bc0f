"""Estimates the hours of a run from the figures of `python -m dreamer.benchmark`."""

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


@dataclass(frozen=True)
class Speed:
    """The measured speed of a machine.

    Attributes:
        seconds: Seconds of an update by precision. The smallest counts for precision auto.
        frames: Environment frames per second, with the policy in the loop.
        task: The measured task.
        config: The measured config by dotted name; empty if the file has none.
    """

    seconds: Mapping[str, float]
    frames: float
    task: str
    config: Mapping[str, Any]

    def hours(self, config: Config, step: int = 0) -> float:
        """Returns the hours of a run of Dreamer from `step` to its end, without evaluations."""
        train = config.train
        schedule = UpdateSchedule(train.prefill, train.pretrain, train.every, train.updates)
        updates = schedule.due(config.steps) - schedule.due(step)
        seconds = self.seconds.get(config.precision) or min(self.seconds.values())
        return (updates * seconds + max(0, config.steps - step) / self.frames) / 3600

    def differs(self, config: Config) -> list[str]:
        """Returns the keys that an update's duration may depend on and that were others then.

        These are the agent's own, but for real numbers, which are rates and scales.
        """
        keys = ["train.batch_size", "train.batch_length"]
        for section, values in config.agent_sections().items():
            keys += [f"{section}.{key}" for key in values if not isinstance(values[key], float)]
        flat = config.flat()
        return [key for key in keys if key in self.config and self.config[key] != flat[key]]


def read_speed(path: Path) -> Speed:
    """Reads the benchmark's figures.

    Raises:
        UserError: There is no such file, or it lacks figures.
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
