"""Evaluation: whole episodes on environments of their own, with the actor's mode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dreamer.collect import Collector, Episode, EpisodeSummary, Policy
from dreamer.envs.pool import EnvPool

# Keeps the seeds of evaluation episodes apart from those of training episodes.
EVAL_SEED_OFFSET = 2**31


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation saw.

    Attributes:
        summaries: One an episode, in their order.
        filmed: The first episodes as collected, [L, ...] each.
    """

    summaries: list[EpisodeSummary]
    filmed: list[Episode]

    @property
    def returns(self) -> list[float]:
        """Return of each episode."""
        return [s.episode_return for s in self.summaries]

    def scalars(self) -> dict[str, float]:
        """Mean, standard deviation and extremes of the returns, and the mean length in steps."""
        return {
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
        episodes: How many an evaluation runs.
        filmed: How many of them it keeps whole.
        first_episode: Number of the first, for a run that goes on.

    Attributes:
        next_episode: Number of the episode that the next evaluation begins with.
    """

    def __init__(
        self, pool: EnvPool, *, seed: int, episodes: int, filmed: int, first_episode: int = 0
    ):
        self._episodes, self._filmed = episodes, filmed
        self._kept: dict[int, Episode] = {}
        self._pool, self._seed = pool, seed + EVAL_SEED_OFFSET
        self.next_episode = first_episode

    def run(self, policy: Policy) -> Evaluation:
        """One evaluation. An error or an interrupt leaves the next one with the same episodes."""
        self._kept = {}
        collector = Collector(self._pool, self._keep, self._seed, self.next_episode)
        summaries = collector.collect_episodes(policy, self._episodes)
        self.next_episode = collector.next_episode
        return Evaluation(summaries, [self._kept[k] for k in sorted(self._kept)])

    def _keep(self, episode: Episode, number: int) -> None:
        if number < self.next_episode + self._filmed:
            self._kept[number] = episode
