"""Places for metrics and videos besides metrics.jsonl and videos/.

TensorBoard, Weights & Biases and MLflow are sinks. If a sink fails, the logger prints a warning and
closes it; the run continues. The services' own environment variables choose project and account:
WANDB_PROJECT (default: dreamer), WANDB_API_KEY, WANDB_MODE=offline; MLFLOW_TRACKING_URI (default:
mlflow.db in the working directory), MLFLOW_EXPERIMENT_NAME (default: dreamer).
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from dreamer.errors import UserError, suggest
from dreamer.io.files import open_to_read, write_json

_IDS = "sinks.json"
_MAX_PARAMS = 100  # MLflow's limit for one call
_MAX_LENGTH = 500  # MLflow's limit for one parameter, in characters


class Sink(Protocol):
    """What a logger calls. Steps are environment frames."""

    def resume(self, step: int) -> None: ...  # points of later steps are no longer valid
    def scalars(self, values: Mapping[str, float], step: int) -> None: ...  # finite numbers
    def video(self, name: str, gif: bytes, step: int) -> None: ...
    def close(self) -> None: ...


def _tag(name: str) -> str:
    """Returns a curve's name in TensorBoard, which sorts groups by name: returns come first."""
    group, slash, kind = name.rpartition("/")
    if kind == "return":
        return f"0_returns/{group}"
    return name if slash else f"run/{name}"  # a counter, which would be a group of its own


class EventFile:
    """One of TensorBoard's event files. Each process of a run makes a new one.

    TensorBoard's complete writer opens its file through TensorFlow. This one opens an ordinary
    file, so that a process that only logs does not import TensorFlow.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2  # late: they take long
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._events, self._summaries = event_pb2, summary_pb2.Summary
        stamp = f"{time.time_ns() // 1000:016d}.{socket.gethostname()}.{os.getpid()}"
        self._file = open(folder / f"events.out.tfevents.{stamp}", "xb")  # noqa: SIM115
        self._records = RecordWriter(self._file)
        self._add(file_version="brain.Event:2")

    def resume(self, step: int) -> None:
        """Tells TensorBoard to ignore the points of later steps than `step` in earlier files."""
        log = self._events.SessionLog
        self._add(step=step + 1, session_log=log(status=log.SessionStatus.START))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds one point to the curve of each name."""
        self._add_values(step, *({"tag": _tag(k), "simple_value": v} for k, v in values.items()))

    def video(self, name: str, gif: bytes, step: int) -> None:
        """Adds a GIF; TensorBoard's page of images plays it."""
        width, height = struct.unpack_from("<HH", gif, 6)
        image = {"encoded_image_string": gif, "width": width, "height": height, "colorspace": 3}
        self._add_values(step, {"tag": name, "image": image})

    def close(self) -> None:
        self._file.close()

    def _add_values(self, step: int, *values: Mapping[str, Any]) -> None:
        summary = self._summaries(value=[self._summaries.Value(**value) for value in values])
        self._add(step=step, summary=summary)

    def _add(self, **content: Any) -> None:
        event = self._events.Event(wall_time=time.time(), **content)
        self._records.write(event.SerializeToString())
        self._file.flush()


class WandbSink:
    """A run of Weights & Biases, or the page of the run that is resumed.

    The steps of Weights & Biases must rise, so environment frames are a metric `step`, the x axis
    of all other metrics. Steps that a resumed run repeats appear twice.
    """

    def __init__(self, path: Path, name: str, config: Mapping[str, Any]) -> None:
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "dreamer"), name=name, dir=path,
            config=dict(config), id=recall(path, "wandb") or None, resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        remember(path, "wandb", self._run.id)

    def resume(self, step: int) -> None:
        self._run.summary["resumed_from"] = step

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({"step": step, **values})

    def video(self, name: str, gif: bytes, step: int) -> None:
        self._run.log({"step": step, name: self._wandb.Video(io.BytesIO(gif), format="gif")})

    def close(self) -> None:
        self._run.finish()


class MlflowSink:
    """A run of MLflow in the experiment, or the earlier one of the run that is resumed."""

    def __init__(self, path: Path, name: str, config: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient, entities

        self._entities = entities
        self._client = client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or None)
        self._id = recall(path, "mlflow")
        if self._id:
            client.update_run(self._id, status="RUNNING")
            return
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "dreamer")
        found = client.get_experiment_by_name(experiment)
        place = found.experiment_id if found else client.create_experiment(experiment)
        self._id = client.create_run(place, run_name=name).info.run_id
        params = [entities.Param(key, str(value)[:_MAX_LENGTH]) for key, value in config.items()]
        for start in range(0, len(params), _MAX_PARAMS):
            client.log_batch(self._id, params=params[start : start + _MAX_PARAMS])
        remember(path, "mlflow", self._id)

    def resume(self, step: int) -> None:
        self._client.set_tag(self._id, "resumed_from", str(step))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        now = round(time.time() * 1000)
        names = {name: re.sub(r"[^\w./ :-]+", "_", name) for name in values}  # MLflow allows these
        self._client.log_batch(
            self._id,
            [self._entities.Metric(names[k], float(v), now, step) for k, v in values.items()],
        )

    def video(self, name: str, gif: bytes, step: int) -> None:
        with tempfile.TemporaryDirectory(prefix="dreamer-") as folder:
            path = Path(folder, f"{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}-{step}.gif")
            path.write_bytes(gif)
            self._client.log_artifact(self._id, str(path), "videos")

    def close(self) -> None:
        self._client.set_terminated(self._id)


# The sinks of `log.sinks`. A sink's name is also its package's.
SINKS: dict[str, Callable[[Path, str, Mapping[str, Any]], Sink]] = {
    "wandb": WandbSink, "mlflow": MlflowSink,
}  # fmt: skip


def sink_names(text: str) -> list[str]:
    """Returns the names in `log.sinks`; UserError if one is unknown or not installed."""
    names = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for name in names:
        if name not in SINKS:
            near = suggest(name, SINKS)
            raise UserError(f"log.sinks has {name!r}{near}; expected wandb, mlflow or wandb,mlflow")
        if importlib.util.find_spec(name) is None:
            raise UserError(f"log.sinks has {name}, which is not installed: pip install {name}")
    return names


def make_sinks(text: str, path: Path, config: Mapping[str, Any]) -> list[Sink]:
    """Opens the sinks in `log.sinks`, which show all keys of the config beside the metrics.

    A sink names the run by the last three parts of its directory. The file sinks.json keeps the
    run's id in each sink, so that a resumed run continues there. Raises UserError as `sink_names`,
    or if a sink cannot be opened.
    """
    sinks: list[Sink] = []
    for name in sink_names(text):
        try:
            sinks.append(SINKS[name](path, "/".join(path.absolute().parts[-3:]), config))
        except Exception as error:  # a library may raise any kind
            for sink in sinks:
                sink.close()
            raise UserError(
                f"log.sinks: cannot open {name}: {' '.join(str(error).split())[:500]}; see its "
                "settings, or leave it out"
            ) from error
    return sinks


def recall(path: Path, name: str) -> str:
    """Returns a sink's id of this run; "" without one."""
    try:
        with open(open_to_read(path / _IDS), "rb") as file:
            found = json.load(file)[name]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) else ""


def remember(path: Path, name: str, identity: str) -> None:
    """Writes a sink's id of this run to sinks.json."""
    ids = {other: known for other in SINKS if (known := recall(path, other))}
    write_json(path / _IDS, {**ids, name: identity})
