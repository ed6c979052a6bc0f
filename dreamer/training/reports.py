"""What a training run reports on the way: evaluations, videos and lines of metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dreamer.io.disk import RetryWhileDiskFull
from dreamer.io.files import DiskFullError
from dreamer.logs.logger import Logger
from dreamer.logs.video import open_loop_video, signed_difference, tile
from dreamer.training.collector import Episode, Policy
from dreamer.training.evaluation import Evaluation, Evaluator
from dreamer.training.interfaces import TrainableAgent
from dreamer.training.interrupts import Interrupt, StopRequested
from dreamer.training.schedule import Intervals, is_due

CONTEXT, IMAGINED = 5, 45  # timesteps of an open-loop video, as in the paper's figure 5
# Timesteps a second in videos of episodes, whatever a step of the task lasts: movements can be
# followed with the eye.
EPISODE_FPS = 25
# A minute. An Atari game may have 27,000 timesteps, and as a GIF they take gigabytes of memory.
MAX_EPISODE_FRAMES = 60 * EPISODE_FPS
OPEN_LOOP_FPS = 10  # slow enough to compare truth and model


class Reporter:
    """Makes evaluations, videos and lines of metrics when they are due.

    Args:
        agent: The agent; an interrupted evaluation gives its noise back.
        evaluator: Runs the evaluations.
        logger: Takes metrics and videos.
        intervals: How often each is due.
        retry_while_disk_full: Repeats what fails while the disk is full.
        interrupt: A stop leaves out the videos that are not written yet.

    Attributes:
        done: The step at which each was last done, by the name of its interval.
        last_return: Mean return of the last evaluation; None before the first.
    """

    def __init__(
        self,
        agent: TrainableAgent,
        evaluator: Evaluator,
        logger: Logger,
        intervals: Intervals,
        retry_while_disk_full: RetryWhileDiskFull,
        interrupt: Interrupt,
    ) -> None:
        self.evaluator, self.logger = evaluator, logger
        self.done: dict[str, int | None] = dict.fromkeys(vars(intervals))
        self.last_return: float | None = None
        self._agent, self._intervals = agent, intervals
        self._retry_while_disk_full = retry_while_disk_full
        self._interrupt = interrupt

    def resume(self, state: Mapping[str, Any]) -> None:
        """Continues from the state of a checkpoint."""
        done = state.get("done", {})
        self.done = {name: done.get(name) for name in self.done}
        self.last_return = state.get("last_return")
        self.evaluator.next_episode = state.get("eval_episode", 0)

    def is_due(self, name: str, step: int) -> bool:
        """Returns whether what has the interval of that name is due at this step."""
        return is_due(getattr(self._intervals, name), step, self.done[name])

    def report(
        self, step: int, policy: Policy, counters: Mapping[str, float], final: bool = False
    ) -> None:
        """Writes at most one line of metrics, an evaluation's results included.

        Args:
            step: The current step.
            policy: The policy to evaluate.
            counters: Values for the line.
            final: Whether the run ends here, so that everything is due.
        """
        if self.is_due("evaluate", step) or (final and self.done["evaluate"] != step):
            self._evaluate(step, policy)
            self._write(step, counters)
        elif self.is_due("log", step) or (final and self.done["log"] != step):
            self._write(step, counters)

    def _evaluate(self, step: int, policy: Policy) -> None:
        start = time.monotonic()
        calls = self._agent.policy_calls

        def attempt() -> Evaluation:
            try:
                return self.evaluator.run(policy)
            except BaseException:
                self._agent.policy_calls = calls  # so that the next attempt has the same noise
                raise

        evaluation = self._retry_while_disk_full(attempt)
        scalars = evaluation.scalars()
        self.last_return = scalars["eval/return"]
        self.logger.scalars({**scalars, "eval/seconds": time.monotonic() - start})
        self._write_videos(evaluation, step)
        self.done["evaluate"] = step

    def _write_videos(self, evaluation: Evaluation, step: int) -> None:
        due = self.is_due("video", step)
        check = self._interrupt.check
        try:
            write_evaluation_videos(self.logger, evaluation.shown, step, check)
            if due:
                write_open_loop_videos(self.logger, self._agent, evaluation.kept, step, check)
        except DiskFullError as error:  # a video is no reason to stop
            self.logger.message(f"warning: {error} -- the run goes on without this video")
        except StopRequested:
            # The evaluation is complete and counts; the loop stops at its next step or update.
            self.logger.message("the stop leaves out the other videos of this evaluation")
            return
        if due:
            self.done["video"] = step

    def _write(self, step: int, counters: Mapping[str, float]) -> None:
        self._retry_while_disk_full(lambda: self.logger.write(step, **counters))
        self.done["log"] = step


# ------------------------------------------------------------------- videos


def image_keys(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Returns the keys of images, uint8 arrays [..., H, W, C]."""
    return [k for k, v in arrays.items() if v.dtype == np.uint8 and v.ndim >= 4]


def write_evaluation_videos(
    logger: Logger, episodes: Sequence[Episode], step: int, check: Callable[[], None]
) -> None:
    """Writes a video of each image observation: the episodes side by side, their first minute.

    Args:
        logger: Takes the videos.
        episodes: Episodes [L, ...].
        step: The current step.
        check: Called before each video, which takes seconds; what it raises ends this.
    """
    if not episodes:
        return
    for key in image_keys(episodes[0]):
        check()
        name = "eval/policy" if key == "image" else f"eval/policy_{key}"
        frames = tile([episode[key][:MAX_EPISODE_FRAMES] for episode in episodes])
        logger.video(name, frames, step, EPISODE_FPS)


def write_open_loop_videos(
    logger: Logger,
    agent: TrainableAgent,
    episodes: Sequence[Episode],
    step: int,
    check: Callable[[], None],
) -> None:
    """Predicts held-out episodes; writes videos of truth, model and error, and logs the errors.

    The model observes CONTEXT timesteps and imagines up to IMAGINED more from the actions alone.
    Agents without a model predict nothing and get no video. Arguments: `write_evaluation_videos`.
    """
    check()
    batch = held_out_batch(episodes, CONTEXT + IMAGINED)
    if not batch:
        return
    result = agent.predict(batch, CONTEXT)
    if not result:
        return
    error = result["model/reward"] - result["truth/reward"]
    logger.scalars({"open_loop/reward_error": float(np.abs(error[:, CONTEXT:]).mean())})
    for key in image_keys({k: v for k, v in result.items() if k.startswith("model/")}):
        check()
        name = key.removeprefix("model/")
        truth, model = result[f"truth/{name}"], result[key]
        difference = model.astype(np.int16) - truth
        logger.scalars({f"open_loop/{name}_error": float(np.abs(difference[:, CONTEXT:]).mean())})
        frames = open_loop_video(truth, model, signed_difference(truth, model), CONTEXT)
        logger.video(f"open_loop/{name}", frames, step, OPEN_LOOP_FPS)


def held_out_batch(episodes: Sequence[Episode], length: int) -> dict[str, np.ndarray]:
    """Returns the first timesteps of several episodes as a batch [B, T, ...], T at most `length`.

    Episodes too short for one imagined step are left out; T is the length of the shortest other.
    """
    usable = [e for e in episodes if len(e["reward"]) > CONTEXT + 1]
    if not usable:
        return {}
    length = min(length, *(len(e["reward"]) for e in usable))
    return {k: np.stack([e[k][:length] for e in usable]) for k in usable[0]}
