"""Opens a run that another process may still be training, and loads the agent it has trained."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

from dreamer.config.config import Config
from dreamer.envs.processes.pool import EnvPool
from dreamer.errors import UserError
from dreamer.runs.checkpoints import Arrays, Checkpoint, Checkpoints, check_name
from dreamer.runs.rundir import RunDir
from dreamer.system.streams import warn
from dreamer.system.tensorflow import prepare_tensorflow
from dreamer.tasks import suite_of
from dreamer.training import build

StrPath = str | os.PathLike[str]


@dataclass(eq=False)
class LoadedRun:
    """A trained agent, and environments of its task."""

    rundir: RunDir
    config: Config
    envs: EnvPool  # each in a process of its own, to be stepped together
    agent: Any  # acts with `agent.policy(timesteps, state, mode)`; of a Dreamer run, an `Agent`
    step: int  # environment frames that the agent has been trained for
    checkpoint: Path  # the folder that the agent is loaded from


class Loading(TypedDict, total=False):
    """How to load a run."""

    num_envs: int | None  # None: as many as the run evaluates with
    checkpoint: StrPath  # the checkpoint's folder; empty: the newest sound one
    # The run's task again, if it is code that the run's config names. The run may come from a
    # stranger, so such code runs only if you name it.
    task: str
    # The interpreter for environments, "" for this process's own; the run's own is not used.
    python: str
    make_agent: build.MakeAgent | None  # makes another agent than Dreamer


@contextmanager
def load_run(run: StrPath, **loading: Unpack[Loading]) -> Iterator[LoadedRun]:
    """Loads the trained agent of a run, for a loop of your own; the run may still be training.

    The environments' processes end with the context. Arguments: the run's directory, and those of
    `Loading`.

    Raises:
        UserError: There is no run, its code was not named, or it has no sound checkpoint that
            fits its config.
    """
    task, python = loading.get("task", ""), loading.get("python", "")
    checkpoint = loading.get("checkpoint", "")
    rundir, config = RunDir.load(run)
    if ":" in config.task and config.task != task:
        kind = "file or module" if suite_of(config.task) == "custom" else "module"
        raise UserError(
            f"the run's task {config.task!r} runs code of its own, from a {kind} that its "
            f"config.yaml names; if you trust that, say so: --task {config.task}"
        )
    if config.envs.python not in ("", python):
        warn(
            f"warning: the run's own Python for environments, {config.envs.python!r}, is not "
            f"used: add --python {config.envs.python} if you trust that"
        )
    config = config.replace({"envs.python": python})
    if checkpoint:
        check_name(checkpoint)
    elif Checkpoints(rundir.checkpoints).newest() is None:
        raise UserError(f"{rundir.path} has no checkpoint yet; the first follows the prefill")
    num_envs = loading.get("num_envs") or config.eval.num_envs
    with build.make_pool(config, num_envs, training=False) as envs:
        prepare_tensorflow(config.deterministic)
        make_agent = loading.get("make_agent") or build.make_agent
        agent = make_agent(config, envs.obs_space, envs.act_space)
        found = _read_checkpoint(rundir, checkpoint, agent.state_arrays())
        try:
            agent.load_arrays(found.arrays)
        except (KeyError, ValueError) as error:
            raise UserError(
                f"checkpoint {found.path} does not fit this run's agent ({error})"
            ) from error
        yield LoadedRun(rundir, config, envs, agent, found.step, found.path)


def _read_checkpoint(rundir: RunDir, chosen: StrPath, like: Arrays) -> Checkpoint:
    if chosen:
        return Checkpoints.load(chosen, like)
    with warnings.catch_warnings(record=True) as damaged:
        warnings.simplefilter("always")
        found = Checkpoints(rundir.checkpoints).load_latest(like)
    for warning in damaged:
        warn(f"warning: {warning.message}")
    if found is None:
        raise UserError(f"{rundir.path} has no checkpoint any more")
    return found
