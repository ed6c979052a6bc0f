"""Evaluates a trained agent: mean return and its spread, as text, JSON and video.

python -m dreamer.evaluate --run runs/dmc_walker_walk/dreamer/0 --episodes 10 --video out.gif
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Unpack

import numpy as np

from dreamer.analysis.trained_run import RUN, WHICH, Loading, load_run
from dreamer.config.command_line import CommandLine, Option, run_main
from dreamer.errors import UserError
from dreamer.io.files import check_writable_file, write_json
from dreamer.logs.video import check_video_name, tile, write_video
from dreamer.system.streams import warn
from dreamer.training.build import MakeAgent
from dreamer.training.collector import Timesteps, checked
from dreamer.training.interrupts import Interrupt, StopRequested
from dreamer.training.reports import (
    EPISODE_FPS,
    MAX_EPISODE_FRAMES,
    Evaluation,
    Evaluator,
    image_keys,
)

TELL_EVERY = 10.0  # seconds between two lines about the progress

COMMAND_LINE = CommandLine(
    "python -m dreamer.evaluate",
    "Runs new episodes with a trained agent: the actor's mode, without exploration.",
    (
        RUN,
        Option("episodes", 10, "Number of episodes of each task.", min=1),
        Option("video", "", "File for a video of the episodes, ending in .gif or .mp4."),
        Option("video_episodes", 4, "Number of episodes in the video, side by side.", min=1),
        Option("json", "", "File for the results as JSON."),
        Option("seed", -1, "Seed of the episodes' starts; -1: the run's.", min=-1),
        *WHICH,
    ),
    takes_config=False,
)


@dataclass(frozen=True)
class Result:
    """The outcome of an evaluation."""

    run: Path
    checkpoint: Path
    task: str
    step: int  # environment frames that the agent has been trained for
    seed: int  # of the episodes
    evaluation: Evaluation

    def as_json(self) -> dict[str, Any]:
        """Returns all but the images as JSON's types; returns are named as in metrics.jsonl."""
        return {
            "run": str(self.run), "checkpoint": str(self.checkpoint), "task": self.task,
            "step": self.step, "seed": self.seed, **self.evaluation.scalars(),
            "episodes": [asdict(summary) for summary in self.evaluation.summaries],
        }  # fmt: skip


def main(
    argv: Sequence[str], make_agent: MakeAgent | None = None,
    command_line: CommandLine = COMMAND_LINE,
) -> int:  # fmt: skip
    """Reads the command line, evaluates, prints and writes; returns the exit status."""
    options = command_line.parse(argv).options
    video, report = options.pop("video"), options.pop("json")
    if video:
        check_video_name(video)
        check_writable_file(Path(video), "--video")
    if report:
        check_writable_file(Path(report), "--json")
    shown = min(options["video_episodes"], options["episodes"]) if video else 0
    try:
        result = evaluate(
            **{**options, "video_episodes": shown}, make_agent=make_agent, on_progress=warn
        )
    except StopRequested as stop:
        print(stop)
        return stop.status
    print(as_text(result))
    if report:
        write_json(report, result.as_json())
    if video:
        show(result.evaluation, video)
    return 0


def evaluate(
    run: str | os.PathLike[str], *, episodes: int = 10, video_episodes: int = 0, seed: int = -1,
    on_progress: Callable[[str], object] = lambda text: None, **loading: Unpack[Loading],
) -> Result:  # fmt: skip
    """Runs episodes with the agent of a run, which may still be training.

    Arguments: see --help; those of `loading`, see `dreamer.analysis.trained_run.load_run`. A run
    that learns without images is drawn for the video alone. Raises UserError if there is no run or
    no sound checkpoint, or the environment draws no image for a video; StopRequested, which says
    the mean so far, after a signal. `on_progress` is called with what the evaluation does: as it
    begins, and every `TELL_EVERY` seconds.
    """
    loading["drawn"] = video_episodes > 0
    on_progress(f"loading {run} and its environments")
    with load_run(run, **loading) as loaded, Interrupt() as interrupt:
        if video_episodes and not any(space.is_image for space in loaded.envs.obs_space.values()):
            raise UserError(
                f"{run} learns without images, and its environment draws none, so there is nothing "
                "to show; leave --video out"
            )
        hidden = loaded.envs.obs_space.keys() - loaded.obs_space.keys()

        def act(timesteps: Timesteps, state: Any) -> tuple[np.ndarray, Any]:
            seen = {key: value for key, value in timesteps.items() if key not in hidden}
            return loaded.agent.policy(seen, state, mode="eval")

        loaded.envs.on_wait = interrupt.while_waiting
        policy = checked(act, interrupt.check)
        with interrupt.immediately():  # as loading takes long
            _ = loaded.agent
        seed = loaded.config.seed if seed < 0 else seed
        evaluator = Evaluator(loaded.envs, seed=seed, episodes=episodes, shown=video_episodes)
        returns: list[float] = []
        total, told = episodes * len(set(loaded.envs.tasks)), time.monotonic()
        on_progress(f"running {total} episode(s)")

        def take(value: float) -> None:
            nonlocal told
            returns.append(value)
            if time.monotonic() - told >= TELL_EVERY:
                told = time.monotonic()
                on_progress(f"{len(returns)} of {total} episodes, mean return {mean(returns):.1f}")

        try:
            evaluation = evaluator.run(policy, take)
        except StopRequested as stop:
            so_far = f": return {spread(returns)}" if returns else ""
            stop.args = (f"{stop} after {len(returns)} of {total} episodes{so_far}",)
            raise
    task, path = loaded.config.task, loaded.rundir.path
    return Result(path, loaded.checkpoint, task, loaded.step, seed, evaluation)


def as_text(result: Result) -> str:
    """Returns one line per episode, and one per task with mean and standard deviation."""
    lines = [f"{result.task} after {result.step:,} steps, checkpoint {result.checkpoint}"]
    for summary in result.evaluation.summaries:
        ending = "ended by the task" if summary.terminal else "at the time limit"
        name = f" of {summary.task}" if "," in result.task else ""
        lines.append(
            f"episode {summary.number}{name}: return {summary.episode_return:.1f} in "
            f"{summary.steps} steps, {ending}"
        )
    each = {f"{task}: ": returns for task, returns in result.evaluation.by_task().items()}
    for name, returns in {**each, "": result.evaluation.returns}.items():
        lines.append(f"{name}return {spread(returns)}")
    return "\n".join(lines)


def spread(returns: Sequence[float]) -> str:
    """Returns the mean and the standard deviation of some returns in words."""
    return (
        f"{np.mean(returns):.1f} +- {np.std(returns):.1f} over {len(returns)} episodes (mean and "
        "standard deviation)"
    )


def show(evaluation: Evaluation, path: str) -> None:
    """Writes the episodes side by side: their first minute as a .gif, all of them as an .mp4."""
    keys = image_keys(evaluation.shown[0])
    key = "image" if "image" in keys else keys[0]
    frames = tile([episode[key] for episode in evaluation.shown])
    if path.lower().endswith(".gif") and len(frames) > MAX_EPISODE_FRAMES:
        print(f"the video ends after {MAX_EPISODE_FRAMES} of {len(frames)} timesteps; an .mp4 "
              "holds all")  # fmt: skip
        frames = frames[:MAX_EPISODE_FRAMES]
    write_video(path, frames, EPISODE_FPS)


if __name__ == "__main__":
    run_main(main)
