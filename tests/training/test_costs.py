"""What a run says of the hours ahead of it."""

from __future__ import annotations

import pytest
import tensorflow as tf

from dreamer.config.config import load_config
from dreamer.training.costs import forecast, is_full_size
from dreamer.training.schedule import UpdateSchedule

TASK = "dmc_walker_walk"
ADVICE = "; this is full size and wants a GPU"
SMALL = ": --configs small is made for pixels on a CPU"


@pytest.mark.parametrize(
    ("agent", "presets", "overrides", "full"),
    [
        ("dreamer", (), {}, True),
        ("dreamer", ("contrastive",), {}, True),
        ("dreamer", ("contrastive", "small"), {}, False),
        ("dreamer", (), {"train.batch_size": 4, "encoder.cnn_depth": 8}, False),
        ("dreamer", (), {"train.batch_length": 10}, False),
        ("dreamer", (), {"train.batch_size": 100}, True),
        ("dreamer", ("dmc_proprio",), {}, False),
        ("planet", (), {}, True),
        ("planet", ("small",), {}, False),
        ("d4pg", (), {}, True),
        ("d4pg", (), {"train.batch_size": 100}, False),  # its own default is 256, not 50
        ("random", (), {}, False),
    ],
)
def test_full_size_is_what_the_values_say(agent, presets, overrides, full):
    config = load_config(*presets, task=TASK, overrides=overrides, agent=agent)
    assert is_full_size(config) == full


def said(*presets: str, agent: str = "dreamer", **overrides: int) -> str:
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("a GPU is here")
    values = {"steps": 25_000, **overrides}
    config = load_config(*presets, task=TASK, overrides=values, agent=agent)
    return forecast(config, UpdateSchedule(5000, 100, 1000, 100), 1.5, 50.0)


def test_the_hours_and_the_preset_for_cpus():
    cost = (
        "measured here: 1.50 s an update, 50 frames a second; 25,000 steps with 2,100 updates "
        "will take about 1:00:50 (h:mm:ss, without evaluations)"
    )
    assert said() == said("contrastive") == cost + ADVICE + SMALL
    assert said("small") == said("dmc_proprio") == cost


def test_a_preset_that_the_agent_does_not_take_is_not_named():
    assert said(agent="planet").endswith(ADVICE + SMALL)
    assert said(agent="dqn", steps=1_000_000).endswith(ADVICE)
