"""Evaluations, on episodes that training never sees; and the videos and metrics of a run."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.data.episodes import save_episode
from dreamer.envs.processes.pool import EnvPool
from dreamer.io.files import DiskFullError
from dreamer.logs.logger import Logger
from dreamer.logs.terminal import Phase
from dreamer.logs.video import open_loop_video, signed_difference, tile
from dreamer.training.collector import Collector, Episode, EpisodeSummary, Policy, stack
from dreamer.training.interfaces import TrainableAgent
from dreamer.training.interrupts import Interrupt, RetryWhileDiskFull, StopRequested

CONTEXT, IMAGINED = 5, 45  # timesteps of an open-loop video, as in the paper's figure 5
EPISODE_FPS = 25  # timesteps a second, so that the eye can follow movements
# A minute. An Atari game may have 27,000 timesteps, and as a GIF they take gigabytes of memory.
MAX_EPISODE_FRAMES = 60 * EPISODE_FPS
OPEN_LOOP_FPS = 10  # slow enough to compare truth and model
# Keeps the seeds of evaluation episodes apart from those of training episodes.
EVAL_SEED_OFFSET = 2**31


@dataclass(frozen=True)
class Evaluation:
    """The outcome of an evaluation."""

    summaries: list[EpisodeSummary]  # one an episode, in the order of their numbers
    kept: list[Episode]  # the first episodes, [L, ...] each; at least one
    shown: list[Episode]  # those of them that videos show

    @property
    def returns(self) -> list[float]:
        """The return of each episode."""
        return [s.episode_return for s in self.summaries]

    def by_task(self) -> dict[str, list[float]]:
        """Returns the returns of each of several tasks; {} if there is one."""
        tasks = dict.fromkeys(s.task for s in self.summaries)
        several = tasks if len(tasks) > 1 else ()
        return {t: [s.episode_return for s in self.summaries if s.task == t] for t in several}

    def scalars(self) -> dict[str, float]:
        """Returns mean, standard deviation and extremes of the returns, and the mean length.

        If there are several tasks, the mean of each is added. All have equally many episodes, so
        the overall mean is the mean over the tasks.
        """
        means = {f"eval/{task}/return": float(np.mean(r)) for task, r in self.by_task().items()}
        return {
            **means,
            "eval/return": float(np.mean(self.returns)),
            "eval/return_std": float(np.std(self.returns)),
            "eval/return_min": float(np.min(self.returns)),
            "eval/return_max": float(np.max(self.returns)),
            "eval/length": float(np.mean([s.steps for s in self.summaries])),
            "eval/episodes": len(self.summaries),
        }


@dataclass(eq=False)
class Evaluator:
    """Runs episodes that training never sees, new ones in each evaluation."""

    pool: EnvPool  # used for nothing else meanwhile
    seed: int  # the run's
    episodes: int  # of each task in an evaluation
    shown: int  # episodes of each task that videos show
    directory: Path | None = None  # where to save all of them; None: nowhere
    next_episode: int = field(default=0, init=False)  # the first one of the next evaluation

    def run(
        self, policy: Policy, on_episode: Callable[[float], object] = lambda value: None
    ) -> Evaluation:
        """Runs one evaluation. After an error or a stop, the next one has the same episodes.

        Calls `on_episode` after each episode, with its return.
        """
        found: dict[int, Episode] = {}
        tasks = len(set(self.pool.tasks))
        wanted = max(self.shown, 1) * tasks  # at least one of each, for open-loop predictions

        def keep(episode: Episode, number: int) -> None:
            # Keeps the lowest numbers; if their environments failed, the first that end.
            if len(found) < wanted or number < self.next_episode + wanted:
                found[number] = episode
            if self.directory:
                uid = f"eval{number:08d}"
                before = set(self.directory.glob(f"*-{uid}-*.npz"))  # of an interrupted evaluation
                for old in before - {save_episode(self.directory, episode, uid)}:
                    old.unlink()
            on_episode(float(episode["reward"].sum(dtype=np.float64)))

        collector = Collector(self.pool, keep, self.seed + EVAL_SEED_OFFSET, self.next_episode)
        summaries = collector.collect_episodes(policy, self.episodes)
        self.next_episode = collector.next_episode
        kept = [found[number] for number in sorted(found)][:wanted]
        return Evaluation(summaries, kept, kept[: self.shown * tasks])


@dataclass(eq=False)
class Reporter:
    """Makes evaluations, videos and lines of metrics when they are due."""

    agent: TrainableAgent  # its count of calls is reset after an interrupted evaluation
    evaluator: Evaluator
    logger: Logger
    # Steps between two of "log" (metrics), "evaluate", "video" (open-loop) and "save"; 0: never.
    intervals: Mapping[str, int]
    retry_while_disk_full: RetryWhileDiskFull
    interrupt: Interrupt  # a stop leaves out the videos that are not written yet
    done: dict[str, int | None] = field(init=False)  # the step at which each was last done
    last_return: float | None = field(default=None, init=False)  # of the last evaluation, mean
    _seconds: float = field(default=0.0, init=False)  # that the last evaluation took

    def __post_init__(self) -> None:
        self.done = dict.fromkeys(self.intervals)

    def resume(self, state: Mapping[str, Any]) -> None:
        """Continues from the state of a checkpoint."""
        done = state.get("done", {})
        self.done = {name: done.get(name) for name in self.done}
        self.last_return = state.get("last_return")
        self.evaluator.next_episode = state.get("eval_episode", 0)

    def is_due(self, name: str, step: int, final: bool = False) -> bool:
        """Returns whether `name`, a key of `intervals`, is due; at the end, `final`, all are."""
        last, every = self.done[name], self.intervals[name]
        passed = every > 0 and (last is None or step // every > last // every)
        return passed or (final and last != step)

    def report(
        self, step: int, policy: Policy, counters: Mapping[str, float], final: bool = False
    ) -> dict[str, float]:
        """Writes at most one line of metrics: `counters`, and the results of an evaluation.

        Returns these results, {} if no evaluation was due.
        """
        evaluates = self.is_due("evaluate", step, final)
        results = self._evaluate(step, policy) if evaluates else {}
        if evaluates or self.is_due("log", step, final):
            self.retry_while_disk_full(lambda: self.logger.write(step, **counters))
            self.done["log"] = step
        return results

    def seconds_left(self, step: int, steps: int, episode_seconds: float) -> float:
        """Returns how long the evaluations up to the end, at step `steps`, will take.

        Before the first one this follows from the seconds of an episode in one environment.
        """
        every, last = self.intervals["evaluate"], self.done["evaluate"]
        first = last is None  # one is due at once
        count = steps // every - (step if last is None else last) // every + first
        count += steps % every > 0  # the last one, at the end
        pool = self.evaluator.pool
        episodes = self.evaluator.episodes * len(set(pool.tasks))
        return count * (self._seconds or episode_seconds * episodes / pool.num_envs)

    def _evaluate(self, step: int, policy: Policy) -> dict[str, float]:
        start = time.monotonic()
        calls = self.agent.policy_calls

        total = self.evaluator.episodes * len(set(self.evaluator.pool.tasks))

        def show(done: int) -> None:
            self.logger.progress(Phase("evaluating", done, total, "episodes"))

        def attempt() -> Evaluation:
            show(0)
            done = itertools.count(1)
            try:
                return self.evaluator.run(policy, lambda value: show(next(done)))
            except BaseException:
                self.agent.policy_calls = calls  # so that the next attempt has the same noise
                raise

        evaluation = self.retry_while_disk_full(attempt)
        scalars = evaluation.scalars()
        self.last_return = scalars["eval/return"]
        self.logger.scalars({**scalars, "eval/seconds": time.monotonic() - start})
        self._write_videos(evaluation, step)
        self.done["evaluate"] = step
        self._seconds = time.monotonic() - start
        return scalars

    def _write_videos(self, evaluation: Evaluation, step: int) -> None:
        due = self.is_due("video", step)
        if image_keys(evaluation.kept[0]) and (evaluation.shown or due):
            self.logger.progress(Phase("writing videos"))
        try:
            self._show_episodes(evaluation.shown, step)
            if due:
                self._show_open_loop(evaluation.kept, step)
        except DiskFullError as error:  # a video is no reason to stop
            self.logger.message(f"warning: {error} -- the run continues without this video")
        except StopRequested:
            # The evaluation is complete and counts; the loop stops at its next step or update.
            self.logger.message("the stop leaves out the other videos of this evaluation")
            return
        if due:
            self.done["video"] = step

    def _show_episodes(self, episodes: Sequence[Episode], step: int) -> None:
        """Writes a video of each image observation: the episodes side by side, a minute of them."""
        for key in image_keys(episodes[0]) if episodes else ():
            self.interrupt.check()  # as a video takes seconds
            name = "eval/policy" if key == "image" else f"eval/policy_{key}"
            frames = tile([episode[key][:MAX_EPISODE_FRAMES] for episode in episodes])
            self.logger.video(name, frames, step, EPISODE_FPS)

    def _show_open_loop(self, episodes: Sequence[Episode], step: int) -> None:
        """Predicts held-out episodes; writes videos of truth, model and error, and logs the errors.

        The model observes CONTEXT timesteps and imagines up to IMAGINED more from the actions
        alone. Agents without a model predict nothing and get no video.
        """
        self.interrupt.check()
        batch = held_out_batch(episodes, CONTEXT + IMAGINED)
        result = self.agent.predict(batch, CONTEXT) if batch else {}
        if not result:
            return
        error = result["model/reward"] - result["truth/reward"]
        self.logger.scalars({"open_loop/reward_error": float(np.abs(error[:, CONTEXT:]).mean())})
        for key in image_keys({k: v for k, v in result.items() if k.startswith("model/")}):
            self.interrupt.check()
            name = key.removeprefix("model/")
            truth, model = result[f"truth/{name}"], result[key]
            error = np.abs(model.astype(np.int16) - truth)[:, CONTEXT:]
            self.logger.scalars({f"open_loop/{name}_error": float(error.mean())})
            frames = open_loop_video(truth, model, signed_difference(truth, model), CONTEXT)
            self.logger.video(f"open_loop/{name}", frames, step, OPEN_LOOP_FPS)


def image_keys(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Returns the keys of images, uint8 arrays [..., H, W, C]."""
    return [k for k, v in arrays.items() if v.dtype == np.uint8 and v.ndim >= 4]


def held_out_batch(episodes: Sequence[Episode], length: int) -> dict[str, np.ndarray]:
    """Returns the first timesteps of several episodes as a batch [B, T, ...], T at most `length`.

    Episodes too short for one imagined step are left out; T is the length of the shortest other.
    """
    usable = [e for e in episodes if len(e["reward"]) > CONTEXT + 1]
    if not usable:
        return {}
    length = min(length, *(len(e["reward"]) for e in usable))
    return stack([{key: array[:length] for key, array in e.items()} for e in usable])
