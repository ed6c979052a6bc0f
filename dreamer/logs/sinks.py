"""Where metrics and films go besides metrics.jsonl, which stays the truth about a run.

A sink is optional, and a convenience: the logger gives up one that fails, says so, and the run
goes on. TensorBoard (`dreamer.logs.event_file`), Weights & Biases and MLflow are sinks.
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

PACKAGES = {"wandb": "wandb", "mlflow": "mlflow"}
"""Sinks by name, which is also what they import, and what to install for them."""
_IDS = "sinks.json"


class Sink(Protocol):
    """What a logger hands over."""

    def resume(self, step: int) -> None:
        """The run goes on from `step`; what was handed over for later steps counts no more."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """One point for the curve of each name: finite numbers, at environment frame `step`."""

    def video(self, name: str, gif: bytes, step: int) -> None:
        """A film, as the bytes of a GIF."""

    def close(self) -> None:
        """Nothing more will come."""


def sink_names(text: str) -> list[str]:
    """Returns the sinks that `log.sinks` names, separated by commas.

    Raises:
        UserError: an unknown one, or one whose package is not installed.
    """
    names = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for name in names:
        if name not in PACKAGES:
            near = suggest(name, PACKAGES)
            raise UserError(
                f"log.sinks has {name!r}{near}; expected {' or '.join(PACKAGES)}, or both with a "
                "comma between them"
            )
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"log.sinks has {name}, which is not installed: pip install {PACKAGES[name]}"
            )
    return names


def make_sinks(text: str, path: Path, config: Mapping[str, Any]) -> list[Sink]:
    """Opens the sinks that `log.sinks` names.

    Args:
        text: the key's value.
        path: the run's directory; its last three parts name the run, and sinks.json in it keeps the
            ids by which a resumed run goes on in the same place.
        config: all keys by dotted name, shown beside the metrics.

    Raises:
        UserError: as `sink_names`, or a sink that cannot be opened.
    """
    sinks: list[Sink] = []
    for name in sink_names(text):
        try:
            module = importlib.import_module(f"dreamer.logs.sinks.{name}_sink")
            sinks.append(module.open_sink(path, "/".join(path.absolute().parts[-3:]), config))
        except Exception as error:  # a library's own, of whatever kind
            for sink in sinks:
                sink.close()
            raise UserError(
                f"log.sinks: cannot open {name}: {' '.join(str(error).split())[:500]}; see its "
                "settings, or leave it out"
            ) from error
    return sinks


def recall(path: Path, name: str) -> str:
    """Returns the id that a sink has given this run before; "" if none."""
    try:
        with open(open_to_read(path / _IDS), "rb") as file:
            found = json.load(file)[name]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) else ""


def remember(path: Path, name: str, identity: str) -> None:
    """Keeps the id that a sink has given this run."""
    ids = {other: known for other in PACKAGES if (known := recall(path, other))}
    with atomic_write(path / _IDS) as file:
        file.write(json.dumps({**ids, name: identity}).encode() + b"\n")
