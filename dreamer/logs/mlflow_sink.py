"""Logs to MLflow. MLflow's environment variables choose the place: MLFLOW_TRACKING_URI (default:
mlflow.db in the working directory) and MLFLOW_EXPERIMENT_NAME (default: dreamer)."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from dreamer.logs.sinks import recall, remember

_MAX_PARAMS = 100  # MLflow's limit for one call
_MAX_LENGTH = 500  # MLflow's limit for one parameter, in characters


class MlflowSink:
    """A run of MLflow. The steps of metrics are environment frames."""

    def __init__(self, client: MlflowClient, identity: str) -> None:
        self._client, self._id = client, identity

    def resume(self, step: int) -> None:
        self._client.set_tag(self._id, "resumed_from", str(step))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        now = round(time.time() * 1000)
        metrics = [Metric(_plain(name), float(value), now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def video(self, name: str, gif: bytes, step: int) -> None:
        with tempfile.TemporaryDirectory(prefix="dreamer-") as folder:
            path = Path(folder, f"{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}-{step}.gif")
            path.write_bytes(gif)
            self._client.log_artifact(self._id, str(path), "videos")

    def close(self) -> None:
        self._client.set_terminated(self._id)


def open_sink(path: Path, name: str, config: Mapping[str, Any]) -> MlflowSink:
    """Opens a run in the experiment, or the run's earlier one if it is resumed."""
    client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or None)
    known = recall(path, "mlflow")
    if known:
        client.update_run(known, status="RUNNING")
        return MlflowSink(client, known)
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "dreamer")
    found = client.get_experiment_by_name(experiment)
    place = found.experiment_id if found else client.create_experiment(experiment)
    identity = client.create_run(place, run_name=name).info.run_id
    params = [Param(key, str(value)[:_MAX_LENGTH]) for key, value in config.items()]
    for start in range(0, len(params), _MAX_PARAMS):
        client.log_batch(identity, params=params[start : start + _MAX_PARAMS])
    remember(path, "mlflow", identity)
    return MlflowSink(client, identity)


def _plain(name: str) -> str:
    """A name without the characters that MLflow does not allow."""
    return re.sub(r"[^\w./ :-]+", "_", name)
