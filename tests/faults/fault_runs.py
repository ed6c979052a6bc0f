"""Small runs to be harmed, in processes of their own, and what they leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from whole_runs import ROOT

from dreamer.config.config import Config, load_config
from dreamer.data.episodes import episode_uid
from dreamer.runs.checkpoints import Checkpoints

TESTS = ROOT / "tests"
COUNTING = f"{TESTS}/counting_env.py:make"
FAULTY = f"{TESTS}/faults/faulty_env.py:make"
# Nothing is a multiple of anything else, two environments step together, nothing is drawn.
VALUES: dict[str, Any] = {
    "steps": 200, "precision": "float32", "encoder.keys": "vector", "decoder.keys": "vector",
    "envs.num_envs": 2, "train.prefill": 50, "train.pretrain": 3, "train.every": 30,
    "train.updates": 7, "train.batch_length": 5, "behavior.horizon": 3, "eval.num_envs": 1,
    "eval.every": 70, "eval.episodes": 2, "eval.videos": 0, "log.every": 45,
    "log.video_every": 0, "log.terminal": "plain", "log.tensorboard": False,
    "checkpoint.every": 60,
}  # fmt: skip


def config_for(logdir: Path, task: str = COUNTING, **values: Any) -> Config:
    return load_config("debug", task=task, overrides={**VALUES, "logdir": str(logdir), **values})


def words_for(logdir: Path, task: str = COUNTING, **values: Any) -> list[str]:
    """The same as the words of a command line."""
    flags = {**VALUES, "logdir": logdir, **values}
    pairs = [(f"--{key}", str(value)) for key, value in flags.items()]
    return ["--task", task, "--configs", "debug", *(word for pair in pairs for word in pair)]


def run_of(logdir: Path) -> Path:
    """The one run below a logdir."""
    (found,) = logdir.glob("*/*/*/config.yaml")
    return found.parent


def environ(**variables: str) -> dict[str, str]:
    """For processes that import the tests' modules, as their environments' processes do."""
    path = os.pathsep.join([str(ROOT), str(TESTS), str(TESTS / "faults")])
    return {**os.environ, "PYTHONPATH": path, **variables}


def python(
    code: str, *words: str | Path, timeout: float = 550, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own, which may take `timeout` seconds."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], cwd=ROOT, env=environ(**variables),
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def episodes_of(run: Path) -> dict[str, bytes]:
    """Every episode file's bytes, by its unique id."""
    found = [(episode_uid(path), path) for path in (run / "episodes").glob("*.npz")]
    assert len(dict(found)) == len(found), "two files have one id"
    return {uid: path.read_bytes() for uid, path in found}


def newest(run: Path) -> tuple[int, dict[str, np.ndarray], dict[str, Any]]:
    """Step, arrays and state of the newest sound checkpoint."""
    checkpoint = Checkpoints(run / "checkpoints").load_latest()
    assert checkpoint is not None
    return checkpoint.step, checkpoint.arrays, checkpoint.state


def assert_same_arrays(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    different = [k for k, v in ours.items() if v.tobytes() != theirs[k].tobytes()]
    assert not different


def without(state: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key not in set(keys)}


def fill(disk: Path) -> Path:
    """Leaves no room on a disk; removing the file makes it again."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return filler
    raise AssertionError("it never was full")
