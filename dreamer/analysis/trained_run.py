"""Opens a run that another process may still be training, and loads the agent it has trained."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, Unpack

from dreamer.config.config import Config
from dreamer.envs.processes.pool import EnvPool
from dreamer.errors import UserError
from dreamer.runs.checkpoints import Checkpoint, Checkpoints, check_name
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
    chosen: StrPath  # the checkpoint's folder; empty: the newest sound one
    make_agent: build.MakeAgent

    @property
    def agent(self) -> Any:
        """Acts with `agent.policy(timesteps, state, mode)`; of a Dreamer run, an `Agent`.

        The first use of `agent`, `step` or `checkpoint` loads the agent.

        Raises:
            UserError: There is no sound checkpoint, or it does not fit the config.
        """
        return self._loaded[0]

    @property
    def step(self) -> int:
        """Environment frames that the agent has been trained for."""
        return self._loaded[1]

    @property
    def checkpoint(self) -> Path:
        """The folder that the agent is loaded from."""
        return self._loaded[2]

    @cached_property
    def _loaded(self) -> tuple[Any, int, Path]:
        prepare_tensorflow(self.config.deterministic)
        agent = self.make_agent(self.config, self.envs.obs_space, self.envs.act_space)
        like = agent.state_arrays()
        found: Checkpoint | None
        if self.chosen:
            found = Checkpoints.load(self.chosen, like)
        else:
            with warnings.catch_warnings(record=True) as damaged:
                warnings.simplefilter("always")
                found = Checkpoints(self.rundir.checkpoints).load_latest(like)
            for warning in damaged:
                warn(f"warning: {warning.message}")
        if found is None:
            raise UserError(f"{self.rundir.path} has no checkpoint any more")
        try:
            agent.load_arrays(found.arrays)
        except (KeyError, ValueError) as error:
            raise UserError(
                f"checkpoint {found.path} does not fit this run's agent ({error})"
            ) from error
        return agent, found.step, found.path


class Loading(TypedDict, total=False):
    """Options of `load_run`."""

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

    The environments' processes end with the context. `run` is the run's directory; `loading` are
    the options of `Loading`.

    Raises:
        UserError: There is no run or no checkpoint, or its code was not named.
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
        make_agent = loading.get("make_agent") or build.make_agent
        yield LoadedRun(rundir, config, envs, checkpoint, make_agent)
