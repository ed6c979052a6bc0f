"""Logs to Weights & Biases. Its environment variables choose project, account and mode:
WANDB_PROJECT (default: dreamer), WANDB_API_KEY, WANDB_MODE=offline."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from dreamer.logs.sinks import recall, remember


class WandbSink:
    """A run of Weights & Biases.

    Its own step must rise, so environment frames are a metric `step`, over which the others are
    drawn. Steps that a resumed run repeats are there twice.
    """

    def __init__(self, run: Any) -> None:
        self._run = run

    def resume(self, step: int) -> None:
        self._run.summary["resumed_from"] = step

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({"step": step, **values})

    def video(self, name: str, gif: bytes, step: int) -> None:
        self._run.log({"step": step, name: wandb.Video(io.BytesIO(gif), format="gif")})

    def close(self) -> None:
        self._run.finish()


def open_sink(path: Path, name: str, config: Mapping[str, Any]) -> WandbSink:
    """Opens the run's page, or its earlier page if it is resumed."""
    known = recall(path, "wandb")
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "dreamer"), name=name, dir=path,
        config=dict(config), id=known or None, resume="allow",
        settings=wandb.Settings(silent=True, console="off"),
    )  # fmt: skip
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    remember(path, "wandb", run.id)
    return WandbSink(run)
