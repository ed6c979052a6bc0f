"""Opens a run that another process may still be training, and loads the agent it has trained."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from dreamer.config.command_line import Option
from dreamer.config.config import Config
from dreamer.envs.processes.pool import EnvPool
from dreamer.envs.processes.single import SeparateEnv
from dreamer.envs.spec import Space
from dreamer.errors import ContractError, UserError
from dreamer.runs.checkpoints import Checkpoint, Checkpoints, check_name
from dreamer.runs.exports import arrays_for
from dreamer.runs.rundir import RunDir
from dreamer.system.streams import warn
from dreamer.system.tensorflow import prepare_tensorflow
from dreamer.tasks import suite_of
from dreamer.training import build

StrPath = str | os.PathLike[str]
RUN = Option(
    "run", "", "The run's directory, an exported folder, or pretrained:NAME.", required=True
)
"""The option of programs that take a run."""
WHICH = (
    Option("checkpoint", "latest", "best (the highest return in the run's evaluations), latest "
           "(the newest sound one), the step of a checkpoint, or its folder."),
    Option("task", "", "The task, if it is code of your own: it runs because you name it. "
           "Another place or task than the run's is possible. Empty: the run's."),
    Option("python", "", "The run's envs.python, if you trust that program."),
)  # fmt: skip
"""Their further options: what of the run to load, and what to trust; keys of `Loading`."""


@dataclass(eq=False)
class LoadedRun:
    """A trained agent, and environments of its task."""

    rundir: RunDir
    config: Config
    envs: EnvPool  # each in a process of its own, to be stepped together
    obs_space: Mapping[str, Space]  # what the agent observes of them
    chosen: Checkpoints | Path  # the checkpoint's folder, or where the newest sound one counts
    make_agent: build.MakeAgent
    open_envs: Callable[[], EnvPool]  # opens further environments like `envs`

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
        agent = self.make_agent(self.config, self.obs_space, self.envs.act_space)
        return agent, *self._restore(agent, self.chosen)

    def reload(self, checkpoint: StrPath | int) -> None:
        """Loads another checkpoint of the run, as named in `Loading`, into the same agent.

        Raises UserError if there is no sound one; the agent is then as it was.
        """
        chosen = find_checkpoint(self.rundir, checkpoint)
        self._loaded = self.agent, *self._restore(self.agent, chosen)
        self.chosen = chosen

    def reopen(self) -> None:
        """Replaces the environments, after a failure that closed them."""
        self.envs.close()
        self.envs = self.open_envs()

    def _restore(self, agent: Any, chosen: Checkpoints | Path) -> tuple[int, Path]:
        """Loads a checkpoint into an agent; returns the step and the folder."""
        like = agent.state_arrays()
        found: Checkpoint | None
        if isinstance(chosen, Path):
            found = Checkpoints.load(chosen, like)
        else:
            with warnings.catch_warnings(record=True) as damaged:
                warnings.simplefilter("always")
                found = chosen.load_latest(like)
            for warning in damaged:
                warn(f"warning: {warning.message}")
        if found is None:
            raise UserError(f"{self.rundir.path} has no checkpoint any more")
        try:
            agent.load_arrays(arrays_for(agent, found, like))
        except (KeyError, ValueError) as error:
            raise UserError(
                f"checkpoint {found.path} does not fit this run's agent on "
                f"{self.config.task} ({error})"
            ) from error
        return found.step, found.path


class TrainedAgent:
    """The agent of a run, which acts in one environment, timestep by timestep.

    Attributes:
        agent: The whole agent; of a Dreamer run, an `Agent`.
        config: The run's.
        step: Environment frames that the agent has been trained for.
        checkpoint: The folder that the agent is loaded from.
        obs_space, act_space: What `act` takes and returns.
    """

    def __init__(self, run: LoadedRun) -> None:
        self.agent, self.step, self.checkpoint = run.agent, run.step, run.checkpoint
        self.config = run.config
        self.obs_space, self.act_space = run.obs_space, run.envs.act_space
        self._state: Any = None  # None: the next timestep begins an episode

    def reset(self) -> None:
        """Makes the next timestep the first of an episode, for timesteps without is_first."""
        self._state = None

    def act(self, timestep: Mapping[str, Any], *, explore: bool = False) -> np.ndarray:
        """Returns the action for an environment's newest timestep, float32 [A].

        Args:
            timestep: The observations of `obs_space`, and is_first where an episode begins. Further
                keys are ignored.
            explore: Whether to act as in training, with noise; else as in an evaluation.
        Raises:
            dreamer.errors.ContractError: An observation is missing, has another shape or dtype than
                `obs_space`, or is not finite.
        """
        batch = {"is_first": np.array([self._state is None or bool(timestep.get("is_first"))])}
        for key, space in self.obs_space.items():
            if key not in timestep:
                raise ContractError(
                    f"the timestep lacks {key!r}, {space.dtype} {list(space.shape)}; it has "
                    f"{', '.join(timestep)}"
                )
            value = np.asarray(timestep[key])
            if space.dtype.kind == "f" and value.dtype.kind in "fiu":  # such as Python's numbers
                value = value.astype(space.dtype)
            space.check(value, key)
            batch[key] = value[None]
        mode = "train" if explore else "eval"
        actions, self._state = self.agent.policy(batch, self._state, mode)
        return actions[0]


class Loading(TypedDict, total=False):
    """Options of `load_run` and `load`."""

    num_envs: int | None  # None: as many as the run evaluates with; load makes one
    # "best": with the highest return in evaluations; "latest" (or ""): the newest sound one; or
    # the step of a checkpoint, or its folder.
    checkpoint: StrPath | int
    # The task; "": the run's own. If that is code which the run's config names, it is needed: the
    # run may come from a stranger, and such code may lie elsewhere now.
    task: str
    # The interpreter for environments, "" for this process's own; the run's own is not used.
    python: str
    make_agent: build.MakeAgent | None  # makes another agent than Dreamer
    drawn: bool  # whether the environments also draw images that the agent does not observe
    drawn_size: int  # the pixels along each edge of such images; the config's if absent


@contextmanager
def load_run(run: StrPath, **loading: Unpack[Loading]) -> Iterator[LoadedRun]:
    """Loads the trained agent of a run, for a loop of your own; the run may still be training.

    The environments' processes end with the context. `run` is the run's directory, an exported
    folder or ``pretrained:NAME``; `loading` are the options of `Loading`.

    Raises:
        UserError: There is no run or no checkpoint, or its code was not named.
    """
    loaded = _open(run, loading)
    try:
        yield loaded
    finally:
        loaded.envs.close()


def load(run: StrPath, **loading: Unpack[Loading]) -> tuple[TrainedAgent, SeparateEnv]:
    """Loads the trained agent of a run, and one environment of its task in a process of its own.

    Arguments are those of `load_run`. The environment's process ends with its `close`, or with
    this process.

    Raises:
        UserError: As `load_run`; or the run has several tasks, or the agent does not fit.
    """
    loaded = _open(run, {**loading, "num_envs": 1})
    try:
        if loaded.envs.num_envs > 1:
            raise UserError(
                f"{run} has several tasks, {loaded.config.task}: use dreamer.load_run, which has "
                "an environment for each"
            )
        return TrainedAgent(loaded), SeparateEnv(loaded.envs)
    except BaseException:
        loaded.envs.close()
        raise


def _open(run: StrPath, loading: Loading) -> LoadedRun:
    """Starts the environments of a run; nothing is loaded yet."""
    task, python = loading.get("task", ""), loading.get("python", "")
    rundir, config = RunDir.load(run)
    if not task and (":" in config.task or config.envs.arguments):
        kind = "file or module" if suite_of(config.task) == "custom" else "module"
        what = f"runs code of its own, from a {kind}" if ":" in config.task else "gets arguments"
        raise UserError(
            f"the run's task {config.task!r} {what} that its config.yaml names; if you trust that, "
            f"say so: --task {config.task} (or as it is named from this folder, if it lies "
            "elsewhere now)"
        )
    if task not in ("", config.task):
        warn(f"note: the episodes are of {task}; the run was trained on {config.task}")
        config = config.replace({"task": task})
    if config.envs.python not in ("", python):
        warn(
            f"warning: the run's own Python for environments, {config.envs.python!r}, is not "
            f"used: add --python {config.envs.python} if you trust that"
        )
    config = config.replace({"envs.python": python})
    checkpoint = find_checkpoint(rundir, loading.get("checkpoint", ""))
    num_envs = loading.get("num_envs") or config.eval.num_envs or 1
    open_envs = partial(build.make_pool, config, num_envs, training=False)
    envs = open_envs()
    obs_space = envs.obs_space
    if loading.get("drawn") and not any(space.is_image for space in obs_space.values()):
        envs.close()
        size = loading.get("drawn_size", config.envs.image_size)
        open_envs = partial(open_envs, image=True, image_size=size)
        envs = open_envs()
    make_agent = loading.get("make_agent") or build.make_agent
    return LoadedRun(rundir, config, envs, obs_space, checkpoint, make_agent, open_envs)


def find_checkpoint(rundir: RunDir, chosen: StrPath | int) -> Checkpoints | Path:
    """Returns what `chosen` of `Loading` names: a checkpoint's folder, or a folder of checkpoints.

    Raises UserError if there is none.
    """
    name = os.fspath(chosen) if isinstance(chosen, os.PathLike) else str(chosen)
    latest, best = Checkpoints(rundir.checkpoints), Checkpoints(rundir.best)
    if name in ("", "latest", "best"):
        found = best if name == "best" else latest
        if found.newest() is None:
            if rundir.exported:
                raise UserError(f"{rundir.path} is an exported agent: leave --checkpoint out")
            first = "first evaluation" if name == "best" else "prefill"
            raise UserError(f"{rundir.path} has no checkpoint yet; the first follows the {first}")
        return found
    try:
        step = float(name)
    except ValueError:
        check_name(name)
        return Path(name).expanduser()
    steps = {**best.steps(), **latest.steps()}
    if step not in steps:
        raise UserError(
            f"{rundir.path} has no checkpoint of step {name}; there are "
            f"{', '.join(map(str, sorted(steps))) or 'none'} (best, latest or a folder work, too)"
        )
    return steps[int(step)]
