"""What a run will cost on this machine, from its own measured speed."""

from __future__ import annotations

import tensorflow as tf

from dreamer.config import Config
from dreamer.schedule import UpdateSchedule


def forecast(
    config: Config, schedule: UpdateSchedule, seconds_per_update: float, frames_per_second: float
) -> str:
    """A sentence on the hours ahead; without a GPU it names the preset made for CPUs.

    Args:
        config: Of the run.
        schedule: Updates due at a step.
        seconds_per_update: Measured.
        frames_per_second: Of collecting, measured.
    """
    updates = schedule.due(config.steps)
    seconds = updates * seconds_per_update + config.steps / frames_per_second
    text = (
        f"measured here: {seconds_per_update:.2f} s an update, {frames_per_second:.0f} frames a "
        f"second; {config.steps:,} steps with {updates:,} updates will take about "
        f"{duration(seconds)} (evaluations aside)"
    )
    if not tf.config.list_physical_devices("GPU") and not config.presets:
        text += (
            "; this is full size and wants a GPU: --configs small is made for pixels on a "
            "CPU"
        )
    return text


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
