"""Stepping environments with a policy, and handing over complete episodes."""

from __future__ import annotations

import itertools
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dreamer.errors import EnvError

if TYPE_CHECKING:
    from dreamer.envs.processes.pool import EnvPool
    from dreamer.envs.spec import Space, Timestep
if TYPE_CHECKING:
    from dreamer.envs.spec import Timestep

Timesteps = dict[str, np.ndarray]
Policy = Callable[[Timesteps, Any], tuple[np.ndarray, Any]]
"""(timesteps [n, ...], state) -> (actions float32 [n, A], state).

Timesteps hold the observations, reward, cont and the flags of n workers. The state is None at the
very start and otherwise what the policy returned last; rows with is_first start anew.
"""
Episode = dict[str, np.ndarray]
OnEpisode = Callable[[Episode, int], Any]
"""Takes a complete episode [L, ...], with action and cont, and its number."""


@dataclass(frozen=True)
class EpisodeSummary:
    """What an episode came to.

    Attributes:
        number: The episode's number.
        episode_return: Sum of its rewards.
        length: Agent steps it took.
        steps: Environment frames it took, action repeat included.
        terminal: Whether the task itself ended it, rather than a time limit.
        task: What was played.
    """

    number: int
    episode_return: float
    length: int
    steps: int
    terminal: bool
    task: str


def episode_seed(seed: int, number: int) -> int:
    """Returns the seed, below 2**32, of episode `number` of a run seeded `seed`."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def random_policy(act_space: Space, seed: int, first: int = 0) -> Policy:
    """Returns a policy of independent uniform actions of that space; its state is always None.

    Its actions are a function of the seed and the number of the call, which begins with `first`.
    """
    calls = itertools.count(first)

    def policy(timesteps: Timesteps, state: Any) -> tuple[np.ndarray, None]:
        del state  # nothing is remembered from step to step
        rng = np.random.default_rng([seed, next(calls)])
        actions = np.stack([act_space.sample(rng) for _ in timesteps["reward"]])
        return actions.astype(np.float32), None

    return policy


class Collector:
    """Steps the workers of a pool, all at once, and hands over each episode when it is complete.

    Episodes are numbered in the order in which they start (workers of one step in their order), and
    episode k is seeded by `episode_seed(seed, k)`: with the actions, that fixes it.

    Episodes that are under way survive between calls of `collect`, as does the policy's state,
    which is handed to whatever policy comes next (`random_policy` leaves None behind).

    A worker that fails costs the episode it was in: that is dropped, its number is not used again,
    and the pool replaces the worker. `EnvError` comes only once the pool has given up.

    Args:
        pool: The environments.
        on_episode: Takes complete episodes. Should it raise, the episode is kept, and handed over
            first thing in the next call.
        seed: Of the episodes.
        first_episode: Number of the first episode.

    Attributes:
        agent_steps: Actions carried out so far, over all workers.
        episodes: Episodes handed over so far.
        dropped: Episodes that ended with their worker's failure.
        next_episode: Number of the episode that starts next.
    """

    def __init__(
        self, pool: EnvPool, on_episode: OnEpisode, seed: int, first_episode: int = 0
    ) -> None:
        self.agent_steps = 0
        self.episodes = 0
        self.dropped = 0
        self.next_episode = first_episode
        self._pool = pool
        self._on_episode = on_episode
        self._seed = seed
        self._state: Any = None
        self._running: list[Running | None] = [None] * pool.num_envs
        self._games: list[list[UnderWay]] = [[] for _ in range(pool.num_envs)]
        self._complete: list[Running] = []

    @property
    def state(self) -> Any:
        """What the policy returned last."""
        return self._state

    def under_way(self) -> list[UnderWay | None]:
        """The episode that each worker is in the middle of, None where it is in none."""
        return [running.summary() if running else None for running in self._running]

    def games(self) -> list[list[UnderWay]]:
        """The whole episodes that each worker's next one goes on from (`Env.goes_on`)."""
        return [list(game) for game in self._games]

    def restore(
        self, episodes: Sequence[UnderWay | None], games: Sequence[Sequence[UnderWay]], state: Any,
        check: Callable[[], None],
    ) -> list[int]:  # fmt: skip
        """Brings episodes under way back by the actions that led there, and the policy's state.

        Calls `check` before each step, of all workers at once; it may raise to break it off.

        Returns:
            Numbers of the episodes that came out otherwise than they were: their environment is no
            function of its seed and actions, or it failed and they are dropped.
        """
        differing = []
        for turn in range(max(map(len, games), default=0)):
            whole = {worker: game[turn] for worker, game in enumerate(games) if turn < len(game)}
            differing += self._bring_back(whole, check)
            for worker, episode in whole.items():
                self._games[worker].append(episode)
                self._running[worker] = None
        begun = {worker: episode for worker, episode in enumerate(episodes) if episode}
        differing += self._bring_back(begun, check)
        self._state = state
        return differing

    def _bring_back(self, begun: dict[int, UnderWay], check: Callable[[], None]) -> list[int]:
        for worker, episode in begun.items():
            self._running[worker] = Running(episode.number, self._pool.tasks[worker], [])
        for step in range(max((len(episode.actions) for episode in begun.values()), default=0)):
            check()
            self._repeat(begun, step)
        came = [(self._running[worker], episode) for worker, episode in begun.items()]
        return [e.number for now, e in came if now is None or now.summary().digest != e.digest]

    def _repeat(self, begun: dict[int, UnderWay], step: int) -> None:
        """One step of those episodes under way that had come so far."""
        due = [w for w, e in begun.items() if self._running[w] and step < len(e.actions)]
        actions = [begun[worker].actions[step] for worker in due]
        if step:
            timesteps = self._pool.try_step(np.array(actions), due)
        else:
            seeds = [episode_seed(self._seed, begun[worker].number) for worker in due]
            timesteps = self._pool.try_reset(seeds, due)
        for worker, action, timestep in zip(due, actions, timesteps, strict=True):
            self._append(worker, action, timestep)

    def collect(self, policy: Policy, agent_steps: int) -> list[EpisodeSummary]:
        """Takes at least that many agent steps, a multiple of the number of workers.

        Returns:
            The episodes that ended meanwhile, in the order of their ends.
        """
        summaries = self.hand_over()
        workers = range(self._pool.num_envs)
        for _ in range(-(-agent_steps // self._pool.num_envs)):
            while idle := [worker for worker in workers if self._running[worker] is None]:
                self._start(idle)
            self._step(policy, workers)
            summaries += self.hand_over()
        return summaries

    def collect_episodes(self, policy: Policy, count: int) -> list[EpisodeSummary]:
        """Runs exactly `count` new episodes of each task to their ends, for an evaluation.

        They are the first `count` to start, not the first to end, which would favour short ones;
        one more starts for each that is dropped.
        Workers without an episode wait; the policy sees their last timestep and its action for them
        is ignored, so that it always gets one row a worker.

        Returns:
            Summaries, in the order of the episodes' numbers.
        Raises:
            ValueError: episodes of `collect` are still under way.
        """
        if any(self._running) or self._complete:
            raise ValueError("collect_episodes needs a collector without episodes under way")
        self._state = None
        summaries: list[EpisodeSummary] = []
        while (due := self._due(count, summaries)) or any(self._running):
            self._start(due)
            if any(self._running):
                self._step(policy, [w for w, running in enumerate(self._running) if running])
            summaries += self.hand_over()
        return sorted(summaries, key=lambda summary: summary.number)

    def _due(self, count: int, summaries: list[EpisodeSummary]) -> list[int]:
        """The idle workers that begin one of the `count` episodes of their task."""
        begun = Counter(summary.task for summary in summaries)
        begun.update(running.task for running in self._running if running)
        due = []
        for worker, task in enumerate(self._pool.tasks):
            if self._running[worker] is None and begun[task] < count:
                begun[task] += 1
                due.append(worker)
        return due

    def hand_over(self) -> list[EpisodeSummary]:
        """Hands over the complete episodes that `on_episode` has not taken yet."""
        summaries = []
        while self._complete:
            ended = self._complete[0]
            episode = {k: np.stack([r[k] for r in ended.timesteps]) for k in ended.timesteps[0]}
            self._on_episode(episode, ended.number)
            self._complete.pop(0)
            self.episodes += 1
            summaries.append(_summary(ended, episode, self._pool.action_repeat))
        return summaries

    def _start(self, workers: Sequence[int]) -> None:
        if not workers:
            return
        numbers = range(self.next_episode, self.next_episode + len(workers))
        seeds = [episode_seed(self._seed, number) for number in numbers]
        timesteps = self._pool.try_reset(seeds, workers)
        self.next_episode += len(workers)
        no_action = np.zeros(self._pool.act_space.shape, np.float32)
        for worker, number, timestep in zip(workers, numbers, timesteps, strict=True):
            self._running[worker] = Running(number, self._pool.tasks[worker], [])
            self._append(worker, no_action, timestep)

    def _step(self, policy: Policy, workers: Sequence[int]) -> None:
        """One agent step of those workers; the policy sees all."""
        actions, self._state = policy(self._latest(), self._state)
        actions = np.asarray(actions, np.float32)
        timesteps = self._pool.try_step(actions[list(workers)], workers)
        for worker, timestep in zip(workers, timesteps, strict=True):
            if running := self._append(worker, actions[worker].copy(), timestep):
                self.agent_steps += 1
                if running.timesteps[-1]["is_last"]:
                    self._end(worker, running)

    def _end(self, worker: int, running: Running) -> None:
        self._complete.append(running)
        self._running[worker] = None
        if self._pool.goes_on[worker]:
            self._games[worker].append(running.summary())
        else:
            self._games[worker].clear()

    def _append(
        self, worker: int, taken: np.ndarray, timestep: Timestep | EnvError
    ) -> Running | None:
        """Adds a timestep to the worker's episode; None where that is dropped instead."""
        running = self._running[worker]
        assert running is not None
        if isinstance(timestep, EnvError):
            self.dropped += 1
            self._running[worker] = None
            self._games[worker].clear()
            return None
        running.timesteps.append({**timestep, "action": taken})
        return running

    def _latest(self) -> Timesteps:
        """The newest timestep of each worker, stacked; a waiting worker repeats another's."""
        latest = [running.timesteps[-1] if running else None for running in self._running]
        stand_in = next(timestep for timestep in latest if timestep is not None)
        rows = [stand_in if timestep is None else timestep for timestep in latest]
        return {key: np.stack([row[key] for row in rows]) for key in stand_in if key != "action"}


def _summary(ended: Running, episode: Episode, action_repeat: int) -> EpisodeSummary:
    length = len(episode["reward"]) - 1
    return EpisodeSummary(
        number=ended.number,
        task=ended.task,
        episode_return=float(episode["reward"].sum(dtype=np.float64)),
        length=length,
        steps=length * action_repeat,
        terminal=bool(episode["is_terminal"][-1]),
    )


@dataclass(frozen=True)
class UnderWay:
    """An episode, of that number, as far as it has come.

    Attributes:
        actions: float32 [L, A], of its timesteps so far; the first is zero.
        digest: CRC-32 of its newest timestep.
    """

    number: int
    actions: np.ndarray
    digest: int


@dataclass
class Running:
    """An episode under way: its number, its task and its timesteps so far, each with its action."""

    number: int
    task: str
    timesteps: list[Timestep]

    def summary(self) -> UnderWay:
        digest = 0
        for key, value in sorted(self.timesteps[-1].items()):
            digest = zlib.crc32(key.encode() + np.asarray(value).tobytes(), digest)
        actions = np.stack([timestep["action"] for timestep in self.timesteps])
        return UnderWay(self.number, actions, digest)
