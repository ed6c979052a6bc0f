"""What a run's directory says of one run beside its curve: config, hours, machine, clips."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from pathlib import Path
from typing import Any

from dreamer.config.config import load_config
from dreamer.config.schema import DREAMER
from dreamer.errors import UserError
from dreamer.io.files import open_to_read
from dreamer.io.yaml_files import read_yaml
from plots.loading import Run, open_metrics

_TAIL = 1 << 16
_CLIP = re.compile(r"(?P<name>.+)-(?P<step>\d+)\.gif")

OWN_KEYS = ("task", "seed", "logdir", "method")
"""Config keys by which runs are told apart, or that say where they lie."""


@dataclasses.dataclass(frozen=True)
class Details:
    """One run.

    Attributes:
        run: its place and curve.
        step: frames of the last line of metrics.
        seconds: worked, all resumptions together; None where the metrics do not tell.
        config: its keys by dotted name; empty where there is no config.yaml of ours.
        agent, presets, commit, versions, host, machine: as config.yaml has them.
    """

    run: Run
    step: int
    seconds: float | None
    config: dict[str, Any]
    agent: str
    presets: list[str]
    commit: str
    versions: dict[str, str]
    host: str
    machine: dict[str, Any]

    @property
    def name(self) -> str:
        """``<task>/<method>/<seed>``."""
        return f"{self.run.task}/{self.run.method}/{self.run.seed}"

    def hardware(self) -> str:
        """The machine in words; empty where the run does not say."""
        found = self.machine
        if not found:
            return self.host
        words = [f"{found.get('processor', '?')}, {found.get('cores', '?')} cores"]
        memory = found.get("memory")
        if isinstance(memory, int) and memory:
            words.append(f"{memory / 1e9:.0f} GB")
        gpus = found.get("gpus")
        words += [str(gpu) for gpu in gpus] if isinstance(gpus, list) else []
        return f"{', '.join(words)} ({self.host})"

    def command(self) -> str:
        """The command that makes such a run anew; empty where the config is not known."""
        if not self.config:
            return ""
        words = ["python", "-m", "dreamer.run"]
        if self.agent != DREAMER:
            words = ["python", "-m", "baselines.run", "--agent", self.agent]
        words += [f"--task={self.config.get('task', self.run.task)}",
                  f"--seed={self.config.get('seed', 0)}"]
        words += ["--configs", *self.presets] if self.presets else []
        for key, value in self._overrides().items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            words.append(f"--{key}={text}")
        return shlex.join(words)

    def _overrides(self) -> dict[str, Any]:
        """Keys that the presets do not give; all of them where the presets are not to be had."""
        try:
            task = str(self.config.get("task"))
            given = load_config(*self.presets, task=task, agent=self.agent).flat()
        except UserError:
            given = {}
        left = {key: value for key, value in self.config.items() if given.get(key) != value}
        method = {"method": left["method"]} if left.get("method") else {}
        return {**{key: value for key, value in left.items() if key not in OWN_KEYS}, **method}


def seconds_worked(run: Run) -> float | None:
    """Returns the seconds that a run worked by its last line of metrics; None if it tells none."""
    return _seconds(_last_line(run.path))


def read_details(run: Run) -> Details:
    """Reads what is in a run's directory; what is absent or not ours is left empty."""
    record = _record(run.path.parent / "config.yaml")
    last = _last_line(run.path)
    presets = record.get("presets")
    return Details(
        run=run,
        step=int(last["step"]) if isinstance(last.get("step"), int | float) else int(run.x[-1]),
        seconds=_seconds(last),
        config=_flat(record.get("config")),
        agent=str(record.get("agent") or DREAMER),
        presets=[str(preset) for preset in presets] if isinstance(presets, list) else [],
        commit=str(record.get("commit") or ""),
        versions={str(key): str(value) for key, value in _mapping(record.get("versions")).items()},
        host=str(record.get("host") or ""),
        machine=_mapping(record.get("machine")),
    )


def clips(run: Run, budget: int) -> list[tuple[str, int, bytes]]:
    """Returns the newest clip of every name: its name, step and GIF, together within `budget`
    bytes."""
    newest: dict[str, tuple[int, Path]] = {}
    folder = run.path.parent / "videos"
    try:
        paths = [] if folder.is_symlink() else sorted(folder.iterdir())
    except OSError:
        return []
    for path in paths:
        match = _CLIP.fullmatch(path.name)
        if match and int(match["step"]) >= newest.get(match["name"], (-1, path))[0]:
            newest[match["name"]] = int(match["step"]), path
    found = []
    for name, (step, path) in sorted(newest.items()):
        content = _gif(path, budget)
        if content:
            budget -= len(content)
            found.append((name, step, content))
    return found


def has_clips(run: Run) -> bool:
    """Whether there is any clip that could be shown."""
    folder = run.path.parent / "videos"
    return not folder.is_symlink() and any(folder.glob("*.gif"))


def _gif(path: Path, limit: int) -> bytes:
    """An ordinary GIF file of at most that many bytes; empty for anything else."""
    try:
        with open(open_to_read(path), "rb") as file:
            content = file.read(limit + 1)
    except OSError:
        return b""
    return content if len(content) <= limit and content[:6] in (b"GIF87a", b"GIF89a") else b""


def _record(path: Path) -> dict[str, Any]:
    try:
        return read_yaml(path, of_run=True)
    except UserError:
        return {}


def _mapping(value: object) -> dict[str, Any]:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def _flat(config: object) -> dict[str, Any]:
    """Scalars by dotted name, one level of groups deep, as configs are."""
    flat: dict[str, Any] = {}
    for key, value in _mapping(config).items():
        inner = {f"{key}.{name}": leaf for name, leaf in _mapping(value).items()} or {key: value}
        flat.update({name: leaf for name, leaf in inner.items()
                     if isinstance(leaf, bool | int | float | str)})
    return flat


def _seconds(line: dict[str, Any]) -> float | None:
    seconds = line.get("wall_time")
    return float(seconds) if isinstance(seconds, int | float) else None


def _last_line(path: Path) -> dict[str, Any]:
    with open_metrics(path) as file:
        file.seek(max(0, file.seek(0, 2) - _TAIL))
        lines = file.read(_TAIL).splitlines()
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and "step" in record:
            return record
    return {}
