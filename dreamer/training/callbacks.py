"""Code of a user's own that the training loop calls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from dreamer.training.interfaces import TrainableAgent


class Training(Protocol):
    """What a callback is told of the training; a `dreamer.training.trainer.Trainer`.

    Attributes:
        agent: Acts and learns.
        path: The run's directory.
        step: Environment frames so far.
        update: Updates so far.
    """

    agent: TrainableAgent

    @property
    def path(self) -> Path: ...
    @property
    def step(self) -> int: ...
    @property
    def update(self) -> int: ...

    def stop(self) -> None:
        """Ends the training after this round, with an evaluation and a checkpoint."""


class Callback:
    """Override what you need, and give an object of your class to `train(config, callbacks=[...])`.

    The methods are called in the thread of the loop, which waits for them. Their exceptions end
    the training, and the last checkpoint stays.
    """

    def on_start(self, training: Training) -> None:
        """Called before the first step, also of a resumed run."""

    def on_episode(self, training: Training, episode: Mapping[str, np.ndarray]) -> None:
        """Called with each complete training episode, entries [L, ...], once batches may hold it.

        Agents that keep no episodes (A3C) do not call it.
        """

    def on_update(self, training: Training, metrics: Mapping[str, float]) -> None:
        """Called after each call of `train_step`, with its metrics such as ``model/model_loss``.

        A3C makes its updates in processes of their own and does not call it.
        """

    def on_evaluation(self, training: Training, results: Mapping[str, float]) -> None:
        """Called after each evaluation with its results, such as ``eval/return``."""

    def on_checkpoint(self, training: Training, path: Path) -> None:
        """Called after each checkpoint, with its folder."""

    def on_end(self, training: Training) -> None:
        """Called after the last step of a training that was not interrupted."""
