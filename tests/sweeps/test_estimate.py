"""Hours from the benchmark's figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamer.config.config import load_config
from dreamer.errors import UserError
from dreamer.sweep import Speed

FIGURES = {
    "task": "dmc_walker_walk",
    "update": {"float32": {"seconds": 0.5}, "bfloat16": {"seconds": 0.25}},
    "env": {"collect_steps_per_second": 100.0},
    "config": {"train.batch_size": 50, "optimizer.model_lr": 6e-4, "seed": 3},
}


def write(folder: Path, figures: object) -> Path:
    (folder / "speed.json").write_text(json.dumps(figures))
    return folder / "speed.json"


def test_hours_are_updates_and_frames_one_after_the_other(tmp_path: Path):
    speed = Speed(write(tmp_path, FIGURES))
    config = load_config(overrides={"steps": 105_000})
    updates = 100 + 100_000 * 100 // 1000
    assert speed.hours(config) == pytest.approx((updates * 0.25 + 1050) / 3600)
    exact = config.replace({"precision": "float32"})
    assert speed.hours(exact) == pytest.approx((updates * 0.5 + 1050) / 3600)
    assert speed.hours(exact, 55_000) == pytest.approx((5000 * 0.5 + 500) / 3600)
    assert speed.hours(exact, 105_000) == 0
    other = load_config(overrides={"train.batch_size": 10, "optimizer.model_lr": 1.0, "seed": 1})
    assert speed.differs(other) == ["train.batch_size"]


@pytest.mark.parametrize(
    "figures",
    [{}, [], {"update": {}, "env": {"collect_steps_per_second": 1}}, "x", {"update": {"a": 3}},
     {"update": {"a": {"seconds": 0}}, "env": {"collect_steps_per_second": 1}}],
)  # fmt: skip
def test_files_without_the_figures(tmp_path: Path, figures: object):
    with pytest.raises(UserError, match="make it with: python -m dreamer.benchmark"):
        Speed(write(tmp_path, figures))
    with pytest.raises(UserError, match=r"cannot read .*make it with"):
        Speed(tmp_path / "none.json")
