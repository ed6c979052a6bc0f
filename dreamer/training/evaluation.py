"""Evaluation: whole episodes on environments of their own, with the actor's mode."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreamer.data.episodes import save_episode
from dreamer.envs.processes.pool import EnvPool
from dreamer.training.collector import Collector, Episode, EpisodeSummary, Policy

# Keeps the seeds of evaluation episodes apart from those of training episodes.
EVAL_SEED_OFFSET = 2**31


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation saw.

    Attributes:
        summaries: One an episode, in their order.
        kept: The first episodes as collected, [L, ...] each; at least one.
        filmed: Those of them that are to be filmed.
    """

    summaries: list[EpisodeSummary]
    kept: list[Episode]
    filmed: list[Episode]

    @property
    def returns(self) -> list[float]:
        """Return of each episode."""
        return [s.episode_return for s in self.summaries]

    def by_task(self) -> dict[str, list[float]]:
        """Return of each episode, by task."""
        returns: dict[str, list[float]] = {}
        for summary in self.summaries:
            returns.setdefault(summary.task, []).append(summary.episode_return)
        return returns

    def scalars(self) -> dict[str, float]:
        """Mean, standard deviation and extremes of the returns, and the mean length in steps.

        Of several tasks there is each one's mean as well; as all have as many episodes, the mean
        of all is that of the tasks.
        """
        tasks = self.by_task()
        each = {f"eval/{task}/return": float(np.mean(tasks[task])) for task in tasks}
        return {
            **(each if len(each) > 1 else {}),
            "eval/return": float(np.mean(self.returns)),
            "eval/return_std": float(np.std(self.returns)),
            "eval/return_min": float(np.min(self.returns)),
            "eval/return_max": float(np.max(self.returns)),
            "eval/length": float(np.mean([s.steps for s in self.summaries])),
            "eval/episodes": len(self.summaries),
        }


class Evaluator:
    """Runs episodes that no training sees; each evaluation has new ones.

    Args:
        pool: Environments of its own.
        seed: The run's seed.
        episodes: How many an evaluation runs, of each task.
        filmed: How many of them are to be filmed, for each task.
        directory: Where to save all of them; None for nowhere.

    Attributes:
        next_episode: Number of the episode that the next evaluation begins with.
    """

    def __init__(
        self, pool: EnvPool, *, seed: int, episodes: int, filmed: int, directory: Path | None = None
    ):
        self._episodes, self._directory = episodes, directory
        tasks = len(set(pool.tasks))
        self._filmed, self._wanted = filmed * tasks, max(filmed, 1) * tasks
        self._kept: dict[int, Episode] = {}
        self._pool, self._seed = pool, seed + EVAL_SEED_OFFSET
        self.next_episode = 0

    def run(self, policy: Policy) -> Evaluation:
        """One evaluation. An error or an interrupt leaves the next one with the same episodes."""
        self._kept = {}
        collector = Collector(self._pool, self._keep, self._seed, self.next_episode)
        summaries = collector.collect_episodes(policy, self._episodes)
        self.next_episode = collector.next_episode
        kept = [self._kept[k] for k in sorted(self._kept)][: self._wanted]
        return Evaluation(summaries, kept, kept[: self._filmed])

    def _keep(self, episode: Episode, number: int) -> None:
        # One of each task at least, for open-loop predictions. Those of the lowest numbers, or
        # where their workers failed, of the first that end.
        if len(self._kept) < self._wanted or number < self.next_episode + self._wanted:
            self._kept[number] = episode
        if self._directory:
            uid = f"eval{number:08d}"
            before = list(self._directory.glob(f"*-{uid}-*.npz"))  # of an interrupted evaluation
            path = save_episode(self._directory, episode, uid)
            for old in before:
                if old != path:
                    old.unlink()
