"""Small runs, in processes of their own, for tests to damage; and the files that they leave."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counting_env import CountingEnv
from whole_runs import ROOT, finish

from dreamer.config.config import Config, load_config
from dreamer.data.episodes import EpisodeFile, episode_uid
from dreamer.data.replay import Replay
from dreamer.runs.checkpoints import Checkpoints
from dreamer.training.schedule import UpdateSchedule

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
SCHEDULE = UpdateSchedule(prefill=50, pretrain=3, every=30, updates=7)
each_agent = pytest.mark.parametrize(
    "agent", ["numpy", pytest.param("dreamer", marks=pytest.mark.faults)]
)
"""For promises that concern files and processes, whatever the agent learns."""
Figure = Callable[[str], None]
"""Notes what a test has seen."""
Disk = Callable[[str], Path]
"""Mounts a file system of a size."""
Harm = tuple[str, int, int, float]
"""Place, count, signal and delay; see `harm`."""


def config_for(logdir: Path, task: str = COUNTING, **values: Any) -> Config:
    return load_config("debug", task=task, overrides={**VALUES, "logdir": str(logdir), **values})


def words_for(logdir: Path, task: str = COUNTING, **values: Any) -> list[str]:
    """The same as the words of a command line; a value None leaves its key out."""
    flags = {**VALUES, "logdir": logdir, **values}
    pairs = [(f"--{key}", str(value)) for key, value in flags.items() if value is not None]
    return ["--task", task, "--configs", "debug", *(word for pair in pairs for word in pair)]


def run_of(logdir: Path) -> Path:
    """The one run below a logdir."""
    (found,) = logdir.glob("*/*/*/config.yaml")
    return found.parent


def environ(**variables: str) -> dict[str, str]:
    """For processes that import the tests' modules, as their environments' processes do."""
    path = os.pathsep.join([str(ROOT), str(TESTS), str(TESTS / "faults")])
    return {**os.environ, "PYTHONPATH": path, **variables}


def python(*words: str | Path, **options: Any) -> subprocess.Popen[str]:
    """Starts Python in the checkout; `options` are Popen's and variables of the environment."""
    variables = {key: options.pop(key) for key in list(options) if key.isupper()}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(
        [sys.executable, *map(str, words)], cwd=ROOT, env=environ(**variables), text=True, **options
    )


def start(
    words: list[str], *harms: Harm, agent: str = "dreamer", **options: Any
) -> subprocess.Popen[str]:
    """Starts the main program, which is to suffer `harms`."""
    return start_in_turn([(words, list(harms))], agent=agent, **options)


def start_in_turn(
    runs: list[tuple[list[str], list[Harm]]], agent: str = "dreamer", **options: Any
) -> subprocess.Popen[str]:
    """Starts the main program several times, one after the other, in one process."""
    return python(TESTS / "faults" / "harm.py", agent, json.dumps(runs), **options)


def run(words: list[str], *harms: Harm, **options: Any) -> tuple[int, str, str]:
    """Runs the main program to its end; exit status, output and errors."""
    return finish(start(words, *harms, **options))


def episodes_of(run: Path) -> dict[str, bytes]:
    """Every episode file's bytes, by its unique id."""
    found = [(episode_uid(path), path) for path in (run / "episodes").glob("*.npz")]
    assert len(dict(found)) == len(found), "two files have one id"
    return {uid: path.read_bytes() for uid, path in found}


def check_episodes(run: Path, harmed: Collection[str] = ()) -> int:
    """Checks that the episode files of a run are sound, except `harmed` ids; returns how many."""
    files = [EpisodeFile(p) for p in (run / "episodes").glob("*.npz")]
    sound = [file for file in files if episode_uid(file.path) not in harmed]
    for file in sound:
        file.check(file.keys)
    return len(sound)


def newest(run: Path) -> tuple[int, dict[str, np.ndarray], dict[str, Any]]:
    """Step, arrays and state of the newest sound checkpoint."""
    checkpoint = Checkpoints(run / "checkpoints").load_latest()
    assert checkpoint is not None
    return checkpoint.step, checkpoint.arrays, checkpoint.state


def counting_replay(folder: Path) -> Replay:
    """A replay of the counting environment's episodes."""
    spaces = {"obs_space": CountingEnv.obs_space, "act_space": CountingEnv.act_space}
    return Replay(folder, cache_bytes=0, seed=0, **spaces)


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
