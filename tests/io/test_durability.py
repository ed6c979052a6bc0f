"""The order of writing and syncing, which decides what a loss of power leaves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from episode_samples import make_episode

from dreamer.config.config import load_config
from dreamer.data.episodes import save_episode
from dreamer.logs.metrics import MetricsFile
from dreamer.runs.checkpoints import Checkpoints
from dreamer.runs.rundir import RunDir
from dreamer.sweeps.trial import record_attempt

Event = tuple[str, Path, Path]  # "synced", "made", "renamed" or "moved"; a path; its new name


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Event]]:
    """Lists the calls that decide what a loss of power leaves, in their order."""
    noted: list[Event] = []

    def noting(kind: str, name: str, path_of: Callable[..., Path], only_new: bool = False) -> None:
        original = getattr(os, name)

        def call(*args, **options):
            path = path_of(*args)
            new = not os.path.lexists(path)
            content = sorted(path.iterdir()) if kind == "renamed" and path.is_dir() else []
            done = original(*args, **options)
            if new or not only_new:
                target = Path(args[1]) if kind == "renamed" else path
                noted.extend(("moved", each, target) for each in content)
                noted.append((kind, path, target))
            return done

        monkeypatch.setattr(os, name, call)

    noting("synced", "fsync", lambda descriptor: Path(os.readlink(f"/proc/self/fd/{descriptor}")))
    noting("made", "open", lambda path, *flags: Path(path), only_new=True)
    noting("made", "mkdir", lambda path, *mode: Path(path))
    for name in ("rename", "replace"):
        noting("renamed", name, lambda source, target: Path(source))
    yield noted


def check_order(events: list[Event]) -> None:
    """Content is synced before it takes its name, and the name before anyone relies on it."""
    assert events
    for at, (kind, path, target) in enumerate(events):
        before = [synced for what, synced, _ in events[:at] if what == "synced"]
        after = [synced for what, synced, _ in events[at:] if what == "synced"]
        if kind in ("moved", "renamed") and target.suffix not in (".tmp", ".old"):
            assert path in before, f"{path} was renamed unsynced"
        if kind in ("made", "renamed") and target.suffix not in (".tmp", ".lock"):
            assert target.parent in after, f"the name {target} was not synced"


def test_everything_a_run_writes_is_synced_in_order(tmp_path: Path, events: list[Event]):
    config = load_config(task="dmc_cartpole_balance", overrides={"logdir": str(tmp_path / "runs")})
    with RunDir.open(config) as run:
        check_order(events)
        made = [path for kind, path, _ in events if kind == "made" and path.suffix != ".tmp"]
        assert {run.path, run.path.parent, run.episodes, run.checkpoints} <= set(made)
    store = Checkpoints(run.checkpoints, keep=1)
    for act in (
        lambda: store.save(1, {"a": np.zeros(3)}, {}),
        lambda: store.save(1, {"a": np.ones(3)}, {}),
        lambda: store.save(2, {"a": np.ones(3)}, {}),
        lambda: save_episode(run.episodes / "further" / "down", make_episode(5), "a"),
        lambda: record_attempt(run.path, "start"),
    ):
        events.clear()
        act()
        check_order(events)


def test_lines_taken_back_are_safe_elsewhere_before_they_go(tmp_path: Path, events: list[Event]):
    path, dropped = tmp_path / "metrics.jsonl", tmp_path / "metrics.jsonl.dropped"
    metrics = MetricsFile(path)
    check_order(events)
    for step in (1, 2):
        metrics.append({"step": step})
        assert events[-1][:2] == ("synced", path)
    metrics.rewind(1)
    metrics.close()
    check_order(events)
    made, synced, renamed = (
        next(at for at, event in enumerate(events) if event == wanted or event[::2] == wanted)
        for wanted in (
            ("made", dropped, dropped), ("synced", dropped, dropped), ("renamed", path),
        )
    )  # fmt: skip
    assert made < synced < renamed
