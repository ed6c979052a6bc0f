"""Optional places for metrics and videos, besides metrics.jsonl and videos/.

TensorBoard (`dreamer.logs.event_file`), Weights & Biases and MLflow are sinks. If a sink fails, the
logger prints a warning and closes it; the run continues.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from dreamer.errors import UserError, suggest
from dreamer.io.files import atomic_write, open_to_read

SINKS = ("wandb", "mlflow")  # a sink's name is also its package's
_IDS = "sinks.json"


class Sink(Protocol):
    """What a logger calls. Steps are environment frames."""

    def resume(self, step: int) -> None: ...  # points of later steps are no longer valid
    def scalars(self, values: Mapping[str, float], step: int) -> None: ...  # finite numbers
    def video(self, name: str, gif: bytes, step: int) -> None: ...
    def close(self) -> None: ...


def sink_names(text: str) -> list[str]:
    """Returns the names in `log.sinks`, where commas separate them.

    Raises:
        UserError: A sink is unknown, or its package is not installed.
    """
    names = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for name in names:
        if name not in SINKS:
            near = suggest(name, SINKS)
            raise UserError(f"log.sinks has {name!r}{near}; expected wandb, mlflow or wandb,mlflow")
        if importlib.util.find_spec(name) is None:
            raise UserError(f"log.sinks has {name}, which is not installed: pip install {name}")
    return names


def make_sinks(text: str, path: Path, config: Mapping[str, Any]) -> list[Sink]:
    """Opens the sinks in `log.sinks`.

    Args:
        text: The key's value.
        path: The run's directory. Its last three parts are the run's name in the sink. Its file
            sinks.json keeps the sinks' ids of the run, so that a resumed run continues there.
        config: All keys by dotted name, to be shown beside the metrics.

    Raises:
        UserError: As `sink_names`, or a sink cannot be opened.
    """
    sinks: list[Sink] = []
    for name in sink_names(text):
        try:
            module = importlib.import_module(f"dreamer.logs.{name}_sink")
            sinks.append(module.open_sink(path, "/".join(path.absolute().parts[-3:]), config))
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
    with atomic_write(path / _IDS) as file:
        file.write(json.dumps({**ids, name: identity}).encode() + b"\n")
