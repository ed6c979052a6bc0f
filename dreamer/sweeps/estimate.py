"""Estimates the hours of a run from the figures of `python -m dreamer.benchmark`."""

from __future__ import annotations

import json
from pathlib import Path

from dreamer.config.config import Config
from dreamer.errors import UserError
from dreamer.training.schedule import UpdateSchedule

COMMAND = "python -m dreamer.benchmark --json speed.json"


class Speed:
    """The measured speed of a machine.

    Args:
        path: File that the benchmark wrote.

    Attributes:
        task: The measured task.

    Raises:
        UserError: There is no such file, or it lacks figures.
    """

    def __init__(self, path: Path) -> None:
        try:
            figures = json.loads(path.read_text(encoding="utf-8"))
            self._seconds = {key: float(one["seconds"]) for key, one in figures["update"].items()}
            self._frames = float(figures["env"]["collect_steps_per_second"])
            self.task, self._config = str(figures.get("task", "?")), dict(figures.get("config", {}))
            if min(*self._seconds.values(), self._frames) <= 0:
                raise ValueError("a figure is not above zero")
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(
                f"cannot read the speed of updates and environments from {path} ({error}); make it "
                f"with: {COMMAND}"
            ) from error

    def hours(self, config: Config, step: int = 0) -> float:
        """Returns the hours of a run of Dreamer from `step` to its end, without evaluations.

        For precision auto the fastest update counts.
        """
        train = config.train
        schedule = UpdateSchedule(train.prefill, train.pretrain, train.every, train.updates)
        updates = schedule.due(config.steps) - schedule.due(step)
        seconds = self._seconds.get(config.precision) or min(self._seconds.values())
        return (updates * seconds + max(0, config.steps - step) / self._frames) / 3600

    def differs(self, config: Config) -> list[str]:
        """Returns the keys that an update's duration may depend on and that were others then.

        These are the agent's own, but for real numbers, which are rates and scales.
        """
        keys = {"train.batch_size", "train.batch_length"}
        for section, values in config.agent_sections().items():
            keys |= {f"{section}.{key}" for key in values if not isinstance(values[key], float)}
        flat = config.flat()
        return sorted(key for key in keys & self._config.keys() if self._config[key] != flat[key])
