"""What a run will cost on this machine, from its own measured speed."""

from __future__ import annotations

import tensorflow as tf

from dreamer.config.config import Config, load_config
from dreamer.config.schema import load_schema
from dreamer.errors import UserError
from dreamer.logs.terminal import duration
from dreamer.training.schedule import UpdateSchedule

# What the preset for CPUs makes smaller and an update's time depends on most.
_SIZES = ("train.batch_size", "train.batch_length", "encoder.cnn_depth")


def forecast(
    config: Config, schedule: UpdateSchedule, seconds_per_update: float, frames_per_second: float
) -> str:
    """A sentence on the hours ahead; at full size without a GPU it names the preset for CPUs.

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
        f"{duration(seconds)} (h:mm:ss, without evaluations)"
    )
    if is_full_size(config) and not tf.config.list_physical_devices("GPU"):
        text += "; this is full size and wants a GPU"
        text += ": --configs small is made for pixels on a CPU" if _takes_small(config) else ""
    return text


def is_full_size(config: Config) -> bool:
    """Whether it learns from images with batches and convolutions no smaller than its agent's
    defaults; agents that have no such keys never do."""
    flat, keys = config.flat(), load_schema(config.agent)
    larger = [float(flat[key]) >= float(keys[key].value) for key in _SIZES if key in keys]
    return bool(flat["envs.image"]) and bool(larger) and all(larger)


def _takes_small(config: Config) -> bool:
    # Every agent is offered the general preset, but not all have the keys that it sets.
    try:
        load_config("small", task=config.task, agent=config.agent)
    except UserError:
        return False
    return True
