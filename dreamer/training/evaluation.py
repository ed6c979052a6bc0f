"""Evaluation: whole episodes on separate environments, with the actor's mode."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dreamer.data.episodes import save_episode
from dreamer.envs.processes.pool import EnvPool
from dreamer.training.collector import Collector, Episode, EpisodeSummary, Policy

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

    pool: EnvPool  # used for nothing else
    seed: int  # the run's
    episodes: int  # of each task in an evaluation
    shown: int  # episodes of each task that videos show
    directory: Path | None = None  # where to save all of them; None: nowhere
    next_episode: int = field(default=0, init=False)  # the first one of the next evaluation

    def run(self, policy: Policy) -> Evaluation:
        """Runs one evaluation. After an error or a stop, the next one has the same episodes."""
        found: dict[int, Episode] = {}
        tasks = len(set(self.pool.tasks))
        wanted = max(self.shown, 1) * tasks  # at least one of each, for open-loop predictions

        def keep(episode: Episode, number: int) -> None:
            # Those with the lowest numbers, or if their environments failed, the first that end.
            if len(found) < wanted or number < self.next_episode + wanted:
                found[number] = episode
            self._save(episode, f"eval{number:08d}")

        collector = Collector(self.pool, keep, self.seed + EVAL_SEED_OFFSET, self.next_episode)
        summaries = collector.collect_episodes(policy, self.episodes)
        self.next_episode = collector.next_episode
        kept = [found[number] for number in sorted(found)][:wanted]
        return Evaluation(summaries, kept, kept[: self.shown * tasks])

    def _save(self, episode: Episode, uid: str) -> None:
        if self.directory:
            before = list(self.directory.glob(f"*-{uid}-*.npz"))  # from an interrupted evaluation
            path = save_episode(self.directory, episode, uid)
            for old in before:
                if old != path:
                    old.unlink()
