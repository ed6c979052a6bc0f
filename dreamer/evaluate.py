"""Evaluation of a trained agent: mean return and its spread, as text, JSON and video.

    python -m dreamer.evaluate --run runs/dmc_walker_walk/dreamer/0 --episodes 10 --video out.gif
"""

from __future__ import annotations

import importlib.util
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamer.config.command_line import CommandLine, Option, run_main
from dreamer.errors import UserError
from dreamer.system.streams import warn

if TYPE_CHECKING:
    import numpy as np

    from dreamer.config.config import Config
    from dreamer.envs.processes.pool import EnvPool
    from dreamer.runs.checkpoints import Checkpoint
    from dreamer.runs.rundir import RunDir
    from dreamer.training.evaluation import Evaluation

COMMAND_LINE = CommandLine(
    "python -m dreamer.evaluate",
    "Runs episodes with a trained agent: the actor's mode, no exploration, starts of their own.",
    (
        Option("run", "", "The run's directory.", required=True),
        Option("episodes", 10, "How many episodes, of each task.", low=1),
        Option("video", "", "Where to write a film of them: a name ending in .gif or .mp4."),
        Option("filmed", 4, "How many of them the film shows, side by side.", low=1),
        Option("json", "", "Where to write the results as JSON."),
        Option("seed", -1, "Seed of the episodes' starts; -1: the run's.", low=-1),
        Option("checkpoint", "", "Folder of the checkpoint; empty: the run's newest sound one."),
        Option("task", "", "The run's task, where that is code of your own that you trust."),
        Option("python", "", "The run's envs.python, where you trust that program."),
    ),
    takes_config=False,
)


@dataclass(frozen=True)
class Result:
    """What an evaluation came to, and of what.

    Attributes:
        run, checkpoint: Folders.
        task: Name of the task.
        step: Environment frames the agent has been trained for.
        seed: Of the episodes.
        evaluation: The episodes.
    """

    run: Path
    checkpoint: Path
    task: str
    step: int
    seed: int
    evaluation: Evaluation

    def as_json(self) -> dict[str, Any]:
        """Everything but the films, as JSON's types; returns under eval/... as in metrics.jsonl."""
        return {
            "run": str(self.run),
            "checkpoint": str(self.checkpoint),
            "task": self.task,
            "step": self.step,
            "seed": self.seed,
            **self.evaluation.scalars(),
            "episodes": [asdict(summary) for summary in self.evaluation.summaries],
        }


def main(
    argv: Sequence[str],
    maker: Callable[..., Any] | None = None,
    command_line: CommandLine = COMMAND_LINE,
) -> int:
    """Reads the command line, evaluates, prints and writes; returns the exit status.

    Args:
        argv: The words.
        maker: As `evaluate` takes it.
        command_line: Of the program that this is part of.
    """
    options = command_line.parse(argv).options
    video, report = options["video"], options["json"]
    check_outputs(video, report)
    filmed = min(options["filmed"], options["episodes"]) if video else 0
    result = evaluate(
        options["run"],
        episodes=options["episodes"],
        filmed=filmed,
        seed=None if options["seed"] < 0 else options["seed"],
        checkpoint=options["checkpoint"] or None,
        task=options["task"],
        python=options["python"],
        maker=maker,
    )
    print(as_text(result))
    if report:
        write_json(result, report)
    if video:
        write_film(result.evaluation, video)
    return 0


def evaluate(
    run: str | os.PathLike[str],
    *,
    episodes: int = 10,
    filmed: int = 0,
    seed: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    task: str = "",
    python: str = "",
    maker: Callable[..., Any] | None = None,
) -> Result:
    """Runs episodes with the agent of a run, which may be training meanwhile.

    Args:
        run: The run's directory.
        episodes: How many.
        filmed: How many of them to keep for a film; the task must have images then.
        seed: Of the episodes; None for the run's.
        checkpoint: Its folder; None for the newest sound one.
        task: The run's task again, where its environment is code that the run's config names:
            the run may come from a stranger.
        python: The interpreter for environments; that of the run's config is not used.
        maker: Makes another agent than Dreamer, as `dreamer.run.train` takes it.
    Raises:
        UserError: No run or no sound checkpoint there, or no images to film.
    """
    from dreamer.training.evaluation import Evaluator

    with open_run(run, checkpoint=checkpoint, task=task, python=python) as (rundir, config, envs):
        if filmed and not image_keys_of(envs):
            raise UserError(
                f"{run} learns without images, so there is nothing to film; leave --video out"
            )
        agent, chosen = load_agent(rundir, config, envs, checkpoint, maker)
        seed = config.seed if seed is None else seed
        evaluator = Evaluator(envs, seed=seed, episodes=episodes, filmed=filmed)
        evaluation = evaluator.run(lambda timesteps, state: agent.policy(timesteps, state, "eval"))
    return Result(rundir.path, chosen.path, config.task, chosen.step, seed, evaluation)


@dataclass(frozen=True)
class LoadedRun:
    """A trained agent, and environments of its task.

    Attributes:
        agent: Acts with `agent.policy(timesteps, state, mode)`; for a Dreamer run an `Agent`.
        envs: The task's environments, each in a process of its own, to be stepped together.
        config: The run's config.
        step: Environment frames the agent has been trained for.
        checkpoint: The folder that the agent was loaded from.
    """

    agent: Any
    envs: EnvPool
    config: Config
    step: int
    checkpoint: Path


@contextmanager
def load_run(
    run: str | os.PathLike[str],
    *,
    num_envs: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    task: str = "",
    python: str = "",
    maker: Callable[..., Any] | None = None,
) -> Iterator[LoadedRun]:
    """Loads the trained agent of a run, for a loop of one's own; the run may go on training.

    Environments live in their own processes, which end with the context.

    Args:
        run: The run's directory.
        num_envs: How many environments; None for as many as the run evaluates with.
        checkpoint: Its folder; None for the newest sound one.
        task: The run's task again, if it is code that the run's config names. The run may come
            from a stranger, so such code runs only if you name it.
        python: The interpreter for environments; the one in the run's config is not used.
        maker: Makes another agent than Dreamer, as `dreamer.run.train` takes it.
    Raises:
        UserError: There is no run or no sound checkpoint, or its code was not named.
    """
    with open_run(run, num_envs, checkpoint, task, python) as (rundir, config, envs):
        agent, chosen = load_agent(rundir, config, envs, checkpoint, maker)
        yield LoadedRun(agent, envs, config, chosen.step, chosen.path)


@contextmanager
def open_run(
    run: str | os.PathLike[str],
    num_envs: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    task: str = "",
    python: str = "",
) -> Iterator[tuple[RunDir, Config, EnvPool]]:
    """A run that has a checkpoint, its config and its environments; arguments as `load_run`."""
    from dreamer.run import make_pool
    from dreamer.runs.rundir import RunDir
    from dreamer.runs.trust import trusted

    rundir, config = RunDir.load(run)
    config = trusted(config, task, python)
    check_checkpoint(rundir, checkpoint)
    with make_pool(config, num_envs or config.eval.num_envs, training=False) as envs:
        yield rundir, config, envs


def check_checkpoint(rundir: RunDir, path: str | os.PathLike[str] | None) -> None:
    """Refuses where there is no checkpoint, before anything is run."""
    from dreamer.runs.checkpoints import Checkpoints

    if path:
        Checkpoints.step_of(path)
    elif Checkpoints(rundir.checkpoints).newest() is None:
        raise UserError(f"{rundir.path} has no checkpoint yet; the first follows the prefill")


def load_agent(
    rundir: RunDir,
    config: Config,
    pool: EnvPool,
    path: str | os.PathLike[str] | None,
    maker: Callable[..., Any] | None = None,
) -> tuple[Any, Checkpoint]:
    """The agent that a run has trained, and the checkpoint that it is from.

    Args:
        rundir, config: The run.
        pool: Its environments.
        path: The checkpoint's folder; None for the newest sound one: damaged ones are named.
        maker: As `evaluate` takes it.

    Raises:
        UserError: There is none, or it is that of another config.
    """
    from dreamer.run import make_agent
    from dreamer.system.tensorflow import prepare_tensorflow

    prepare_tensorflow(config.deterministic)
    agent = (maker or make_agent)(config, pool.obs_space, pool.act_space)
    checkpoint = _load_checkpoint(rundir, path, agent.state_arrays())
    try:
        agent.load_arrays(checkpoint.arrays)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"checkpoint {checkpoint.path} does not fit this run's agent ({error})"
        ) from error
    return agent, checkpoint


def _load_checkpoint(
    rundir: RunDir, path: str | os.PathLike[str] | None, like: Mapping[str, np.ndarray]
) -> Checkpoint:
    from dreamer.runs.checkpoints import Checkpoints

    if path:
        return Checkpoints.load(path, like)
    with warnings.catch_warnings(record=True) as damaged:
        warnings.simplefilter("always")
        checkpoint = Checkpoints(rundir.checkpoints).load_latest(like)
    for warning in damaged:
        warn(f"warning: {warning.message}")
    if checkpoint is None:
        raise UserError(f"{rundir.path} has no checkpoint any more")
    return checkpoint


def check_outputs(video: str, report: str) -> None:
    """Refuses what could not be written, before any episode is run."""
    if video and not video.lower().endswith((".gif", ".mp4")):
        raise UserError(f"--video is {video}; expected a name that ends in .gif or .mp4")
    if video.lower().endswith(".mp4") and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise UserError(
            f"--video is {video}; MP4 files need ffmpeg: pip install imageio-ffmpeg, or end the "
            "name in .gif"
        )
    for name, path in (("video", video), ("json", report)):
        if not path:
            continue
        folder = Path(path).absolute().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK) or Path(path).is_dir():
            raise UserError(f"--{name} is {path}; expected a file in a folder that can be written")


def image_keys_of(pool: EnvPool) -> list[str]:
    """Names of the observations that are images; the one called image first."""
    keys = [key for key, space in pool.obs_space.items() if len(space.shape) == 3]
    return sorted(keys, key=lambda key: key != "image")


def as_text(result: Result) -> str:
    """A line an episode, and one of mean and standard deviation, for each task too of several."""
    import numpy as np

    lines = [f"{result.task} after {result.step:,} steps, checkpoint {result.checkpoint}"]
    for summary in result.evaluation.summaries:
        ending = "ended by the task" if summary.terminal else "at the time limit"
        name = f" of {summary.task}" if "," in result.task else ""
        lines.append(
            f"episode {summary.number}{name}: return {summary.episode_return:.1f} in "
            f"{summary.steps} steps, {ending}"
        )
    episodes = result.evaluation.by_task() if "," in result.task else {}
    named = [(f"{task}: ", returns) for task, returns in episodes.items()]
    for name, returns in [*named, ("", result.evaluation.returns)]:
        lines.append(
            f"{name}return {np.mean(returns):.1f} +- {np.std(returns):.1f} over {len(returns)} "
            "episodes (mean and standard deviation)"
        )
    return "\n".join(lines)


def write_json(result: Result, path: str) -> None:
    """Writes the results; numbers that JSON does not know cannot occur in them."""
    from dreamer.io.files import atomic_write

    with atomic_write(path) as file:
        file.write(json.dumps(result.as_json(), indent=1, allow_nan=False).encode() + b"\n")


def write_film(evaluation: Evaluation, path: str) -> None:
    """Writes the filmed episodes side by side: of a .gif the first minute, of an .mp4 all."""
    from dreamer.logs.video import tile, write_video
    from dreamer.training.films import MOST_TIMESTEPS, TIMESTEPS_PER_SECOND, image_keys

    keys = image_keys(evaluation.filmed[0])
    key = "image" if "image" in keys else keys[0]
    frames = tile([episode[key] for episode in evaluation.filmed])
    if path.lower().endswith(".gif") and len(frames) > MOST_TIMESTEPS:
        print(f"the film ends after {MOST_TIMESTEPS} of {len(frames)} timesteps; an .mp4 holds all")
        frames = frames[:MOST_TIMESTEPS]
    write_video(path, frames, TIMESTEPS_PER_SECOND)


if __name__ == "__main__":
    run_main(main)
