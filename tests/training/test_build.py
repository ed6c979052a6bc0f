"""A run's forecast of its hours."""

from __future__ import annotations

import pytest
import tensorflow as tf

from dreamer.config.config import load_config
from dreamer.training.build import forecast
from dreamer.training.schedule import UpdateSchedule

ADVICE = "; this wants a GPU: --configs small is made for pixels on a CPU"


def said(*presets: str, agent: str = "dreamer", steps: float = 25_000) -> str:
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("a GPU is here")
    config = load_config(*presets, task="dmc_walker_walk", overrides={"steps": steps}, agent=agent)
    return forecast(config, UpdateSchedule(5000, 100, 1000, 100), 1.5, 50.0)


def test_the_hours_and_the_preset_for_cpus():
    assert said() == (
        "measured here: 1.50 s an update, 50 frames a second; 25,000 steps with 2,100 updates "
        "will take about 1:00:50 (h:mm:ss, without evaluations)"
    )
    assert said(steps=5e6).endswith(ADVICE)
    assert said(agent="planet", steps=5e6).endswith(ADVICE)
    assert ADVICE not in said(agent="dqn", steps=5e6)  # it does not take the preset
