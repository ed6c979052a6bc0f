"""Opens a run that another process may still be training, and loads the agent it has trained."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamer.config.config import Config
from dreamer.envs.processes.pool import EnvPool
from dreamer.errors import UserError
from dreamer.runs.checkpoints import Checkpoint, Checkpoints
from dreamer.runs.rundir import RunDir
from dreamer.runs.trust import trusted
from dreamer.system.streams import warn
from dreamer.system.tensorflow import prepare_tensorflow
from dreamer.training import build

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class LoadedRun:
    """A trained agent, and environments of its task.

    Attributes:
        agent: Acts with `agent.policy(timesteps, state, mode)`; of a Dreamer run, an `Agent`.
        envs: The task's environments, each in a process of its own, to be stepped together.
        config: The run's config.
        step: Environment frames that the agent has been trained for.
        checkpoint: The folder that the agent was loaded from.
    """

    agent: Any
    envs: EnvPool
    config: Config
    step: int
    checkpoint: Path


@contextmanager
def load_run(
    run: StrPath,
    *,
    num_envs: int | None = None,
    checkpoint: StrPath | None = None,
    task: str = "",
    python: str = "",
    make_agent: build.MakeAgent | None = None,
) -> Iterator[LoadedRun]:
    """Loads the trained agent of a run, for a loop of your own; the run may still be training.

    The environments' processes end with the context.

    Args:
        run: The run's directory.
        num_envs: Number of environments; None: as many as the run evaluates with.
        checkpoint: The checkpoint's folder; None: the newest sound one.
        task: The run's task again, if it is code that the run's config names. The run may come
            from a stranger, so such code runs only if you name it.
        python: The interpreter for environments; the one in the run's config is not used.
        make_agent: Makes another agent than Dreamer.

    Raises:
        UserError: There is no run or no sound checkpoint, or its code was not named.
    """
    with open_run(run, num_envs, checkpoint, task, python) as (rundir, config, envs):
        agent, chosen = load_agent(rundir, config, envs, checkpoint, make_agent)
        yield LoadedRun(agent, envs, config, chosen.step, chosen.path)


@contextmanager
def open_run(
    run: StrPath,
    num_envs: int | None = None,
    checkpoint: StrPath | None = None,
    task: str = "",
    python: str = "",
) -> Iterator[tuple[RunDir, Config, EnvPool]]:
    """Opens a run that has a checkpoint: its directory, config and environments.

    Arguments and errors are those of `load_run`.
    """
    rundir, config = RunDir.load(run)
    config = trusted(config, task, python)
    if checkpoint:
        Checkpoints.step_of(checkpoint)
    elif Checkpoints(rundir.checkpoints).newest() is None:
        raise UserError(f"{rundir.path} has no checkpoint yet; the first follows the prefill")
    with build.make_pool(config, num_envs or config.eval.num_envs, training=False) as envs:
        yield rundir, config, envs


def load_agent(
    rundir: RunDir,
    config: Config,
    envs: EnvPool,
    checkpoint: StrPath | None = None,
    make_agent: build.MakeAgent | None = None,
) -> tuple[Any, Checkpoint]:
    """Returns the agent that a run has trained, and its checkpoint.

    Args:
        rundir, config, envs: From `open_run`.
        checkpoint: The checkpoint's folder; None: the newest sound one; damaged ones are named.
        make_agent: Makes another agent than Dreamer.

    Raises:
        UserError: There is no sound checkpoint, or it does not fit the config.
    """
    prepare_tensorflow(config.deterministic)
    agent = (make_agent or build.make_agent)(config, envs.obs_space, envs.act_space)
    like = agent.state_arrays()
    if checkpoint:
        chosen: Checkpoint | None = Checkpoints.load(checkpoint, like)
    else:
        with warnings.catch_warnings(record=True) as damaged:
            warnings.simplefilter("always")
            chosen = Checkpoints(rundir.checkpoints).load_latest(like)
        for warning in damaged:
            warn(f"warning: {warning.message}")
    if chosen is None:
        raise UserError(f"{rundir.path} has no checkpoint any more")
    try:
        agent.load_arrays(chosen.arrays)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"checkpoint {chosen.path} does not fit this run's agent ({error})"
        ) from error
    return agent, chosen
