"""Steps environments with a policy and hands over complete episodes."""

from __future__ import annotations

import base64
import itertools
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dreamer.envs.processes.pool import EnvPool
from dreamer.envs.spec import Space, Timestep
from dreamer.errors import EnvError

Timesteps = dict[str, np.ndarray]
Policy = Callable[[Timesteps, Any], tuple[np.ndarray, Any]]
"""(timesteps [n, ...], state) -> (actions float32 [n, A], state).

The timesteps hold the observations, rewards, cont and flags of n environments. The state is None at
first, and then what the policy returned last: None or a dict of arrays [n, ...], which the policy
resets in rows with is_first.
"""
Episode = dict[str, np.ndarray]
OnEpisode = Callable[[Episode, int], Any]
"""Takes a complete episode [L, ...], action and cont included, and its number."""


#: Timesteps after which an episode without a time limit is cut off, and after which this is said.
LONGEST, LONG = 10_000, 5_000


@dataclass(frozen=True)
class EpisodeSummary:
    """The outcome of an episode."""

    number: int
    episode_return: float  # sum of its rewards
    length: int  # agent steps it took
    steps: int  # environment frames it took, action repeat included
    terminal: bool  # whether the task ended it, rather than a time limit
    task: str


def episode_seed(seed: int, number: int) -> int:
    """Returns the seed, below 2**32, of episode `number` of a run seeded `seed`."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def stack(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Stacks timesteps to an episode [L, ...] or a row an environment, or episodes to a batch."""
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def random_policy(act_space: Space, seed: int, first: int = 0) -> Policy:
    """Returns a policy of uniform actions, which follow from the seed and the number of the call.

    Calls are counted from `first`. The policy's state is always None.
    """
    calls = itertools.count(first)

    def policy(timesteps: Timesteps, state: Any) -> tuple[np.ndarray, None]:
        del state
        rng = np.random.default_rng([seed, next(calls)])
        actions = np.stack([act_space.sample(rng) for _ in timesteps["is_first"]])
        return actions.astype(np.float32), None

    return policy


def checked(policy: Policy, check: Callable[[], object]) -> Policy:
    """Returns a policy that calls `check` before each action; exceptions of `check` pass."""

    def act(timesteps: Timesteps, state: Any) -> tuple[np.ndarray, Any]:
        check()
        return policy(timesteps, state)

    return act


@dataclass(eq=False)
class Collector:
    """Steps all environments of a pool together and hands over each episode when it is complete.

    Episodes are numbered in the order in which they start (those of one step in the order of their
    environments). The seed of episode k is `episode_seed(seed, k)`, so that seed and actions
    determine an episode.

    Running episodes continue with the next call of `collect`. The policy's state is handed to
    whatever policy comes next; `random_policy` resets it to None.

    If an environment fails, its episode is dropped, the episode's number is not used again, and
    the pool replaces the environment. `EnvError` is raised only after the pool has given up.

    An episode of a task without a time limit is cut off after `longest` timesteps, as at a limit,
    because it may never end, and memory holds it until it does.
    """

    pool: EnvPool
    # Takes complete episodes. If it raises, the episode is handed over again in the next call.
    on_episode: OnEpisode
    seed: int  # of the episodes
    next_episode: int = 0  # number of the episode that starts next
    max_length: float = np.inf  # timesteps after which an episode is cut off
    longest: int = field(default_factory=lambda: LONGEST, init=False)
    agent_steps: int = field(default=0, init=False)  # actions carried out, over all environments
    episodes: int = field(default=0, init=False)  # handed over
    dropped: int = field(default=0, init=False)  # episodes lost to a failed environment

    def __post_init__(self) -> None:
        self._policy_state: Any = None
        self._running: list[_RunningEpisode | None] = [None] * self.pool.num_envs
        # By environment, the ended episodes that its next episode continues (Atari's lives).
        self._games: list[list[_Actions]] = [[] for _ in self._running]
        self._complete: list[_RunningEpisode] = []

    def collect(self, policy: Policy, agent_steps: int) -> list[EpisodeSummary]:
        """Takes at least `agent_steps` agent steps, a multiple of the number of environments.

        Returns the episodes that ended meanwhile, in the order of their ends.
        """
        summaries = self.hand_over()
        workers = range(self.pool.num_envs)
        for _ in range(-(-agent_steps // self.pool.num_envs)):
            while idle := [worker for worker in workers if self._running[worker] is None]:
                self._start(idle)
            self._step(policy, workers)
            summaries += self.hand_over()
        return summaries

    def collect_episodes(self, policy: Policy, count: int) -> list[EpisodeSummary]:
        """Runs exactly `count` new episodes of each task to their ends, for an evaluation.

        They are the first `count` to start. The first to end would favour short episodes. For each
        episode that is dropped another one starts. The policy always gets one row an environment:
        those without an episode repeat another's timestep, and their actions are ignored. Returns
        summaries in the order of the episodes' numbers. No episode of `collect` may be running.
        """
        if any(self._running) or self._complete:
            raise ValueError("collect_episodes needs a collector without episodes under way")
        self._policy_state = None
        summaries: list[EpisodeSummary] = []
        while (due := self._due(count, summaries)) or any(self._running):
            self._start(due)
            if any(self._running):
                self._step(policy, [w for w, running in enumerate(self._running) if running])
            summaries += self.hand_over()
        return sorted(summaries, key=lambda summary: summary.number)

    def _due(self, count: int, summaries: list[EpisodeSummary]) -> list[int]:
        """Returns the idle environments that start one of the `count` episodes of their task."""
        begun = Counter(summary.task for summary in summaries)
        begun.update(running.task for running in self._running if running)
        due = []
        for worker, task in enumerate(self.pool.tasks):
            if self._running[worker] is None and begun[task] < count:
                begun[task] += 1
                due.append(worker)
        return due

    def hand_over(self) -> list[EpisodeSummary]:
        """Hands over the complete episodes that `on_episode` has not taken yet."""
        summaries = []
        while self._complete:
            ended = self._complete[0]
            episode = stack(ended.timesteps)
            self.on_episode(episode, ended.number)
            self._complete.pop(0)
            self.episodes += 1
            length = len(episode["reward"]) - 1
            summaries.append(EpisodeSummary(
                ended.number, float(episode["reward"].sum(dtype=np.float64)), length,
                length * self.pool.action_repeat, bool(episode["is_terminal"][-1]), ended.task,
            ))  # fmt: skip
        return summaries

    def cut(self) -> list[EpisodeSummary]:
        """Ends the running episodes as at a time limit, and hands them over.

        Those without a step are dropped.
        """
        for worker, running in enumerate(self._running):
            if running and len(running.timesteps) > 1:
                running.timesteps[-1]["is_last"] = np.asarray(True)
                self._end(worker, running)
            elif running:
                self._running[worker] = None
                self.dropped += 1
        return self.hand_over()

    def _start(self, workers: Sequence[int]) -> None:
        if workers:
            numbers = range(self.next_episode, self.next_episode + len(workers))
            self._reset(dict(zip(workers, numbers, strict=True)))
            self.next_episode += len(workers)

    def _reset(self, numbers: Mapping[int, int]) -> None:
        """Begins the episodes of these numbers, by environment."""
        seeds = [episode_seed(self.seed, number) for number in numbers.values()]
        timesteps = self.pool.reset(seeds, list(numbers))
        for worker, number in numbers.items():
            self._running[worker] = _RunningEpisode(number, self.pool.tasks[worker], [])
        no_actions = np.zeros((len(numbers), *self.pool.act_space.shape), np.float32)
        self._append(list(numbers), no_actions, timesteps)

    def _step(self, policy: Policy, workers: Sequence[int]) -> None:
        """Takes one agent step of `workers`; the policy sees all environments."""
        latest = [running.timesteps[-1] if running else None for running in self._running]
        stand_in = next(timestep for timestep in latest if timestep is not None)
        timesteps = stack([stand_in if timestep is None else timestep for timestep in latest])
        del timesteps["action"]
        actions, self._policy_state = policy(timesteps, self._policy_state)
        actions = np.asarray(actions, np.float32)[list(workers)]
        self._append(workers, actions, self.pool.step(actions, workers))
        for worker in workers:
            if running := self._running[worker]:
                self.agent_steps += 1
                length = len(running.timesteps)
                if length >= min(LONG, self.longest) and not self.pool.time_limit:
                    self._limit(running)
                if running.timesteps[-1]["is_last"] or length >= self.max_length:
                    self._end(worker, running)

    def _limit(self, running: _RunningEpisode) -> None:
        """Ends a running episode that is too long; says so in advance."""
        length = len(running.timesteps)
        if length == min(LONG, self.longest):
            warnings.warn(
                f"an episode of {running.task} has {length:,} timesteps and no end yet; it is cut "
                f"at {self.longest:,}, as at a time limit: if episodes do not end by themselves, "
                "set envs.time_limit to their number of frames", stacklevel=2,
            )  # fmt: skip
        if length >= self.longest:
            running.timesteps[-1]["is_last"] = np.asarray(True)

    def _append(
        self, workers: Sequence[int], actions: np.ndarray, timesteps: Sequence[Timestep | EnvError]
    ) -> None:
        """Adds a timestep to the episode of each environment; drops that of a failed one."""
        for worker, action, timestep in zip(workers, actions, timesteps, strict=True):
            running = self._running[worker]
            assert running is not None
            if isinstance(timestep, EnvError):
                self.dropped += 1
                self._running[worker] = None
                self._games[worker].clear()
            else:
                running.timesteps.append({**timestep, "action": action})

    def _end(self, worker: int, running: _RunningEpisode) -> None:
        self._complete.append(running)
        self._running[worker] = None
        if self.pool.goes_on[worker]:
            self._games[worker].append(running.actions())
        else:
            self._games[worker].clear()

    # ------------------------------------------------------------ checkpoints

    def state(self) -> dict[str, Any]:
        """Returns the running episodes, their actions and the policy's state as JSON's types."""
        running = [episode and episode.actions() for episode in self._running]
        policy = self._policy_state
        return {
            "under_way": [e and {"number": e.number, "steps": len(e.actions) - 1} for e in running],
            "exact": [episode and episode.to_json() for episode in running],
            "games": [[episode.to_json() for episode in game] for game in self._games],
            "policy": policy and {k: _pack(np.asarray(v)) for k, v in policy.items()},
        }

    def restore(self, state: Mapping[str, Any], check: Callable[[], None]) -> list[int]:
        """Restores what `state` returned; calls `check` before each step that repeats an episode.

        Returns the numbers of the episodes that came out differently: their environment does not
        follow from its seed and actions, or it failed and they are dropped. Raises KeyError,
        TypeError or ValueError for a state of another form.
        """
        running = [episode and _Actions.from_json(episode) for episode in state["exact"]]
        games = [[_Actions.from_json(episode) for episode in game] for game in state["games"]]
        policy = state["policy"]
        differing = []
        for turn in range(max(map(len, games), default=0)):
            ended = {worker: game[turn] for worker, game in enumerate(games) if turn < len(game)}
            differing += self._repeat(ended, check)
            for worker, episode in ended.items():
                self._games[worker].append(episode)
                self._running[worker] = None
        differing += self._repeat({w: e for w, e in enumerate(running) if e}, check)
        self._policy_state = policy and {k: _unpack(v) for k, v in policy.items()}
        return differing

    def _repeat(self, episodes: Mapping[int, _Actions], check: Callable[[], None]) -> list[int]:
        """Repeats one episode in each environment, all together; returns those that differ."""
        for step in range(max((len(episode.actions) for episode in episodes.values()), default=0)):
            check()
            if step == 0:
                self._reset({worker: episode.number for worker, episode in episodes.items()})
                continue
            due = [w for w, e in episodes.items() if self._running[w] and step < len(e.actions)]
            actions = np.array([episodes[worker].actions[step] for worker in due])
            self._append(due, actions, self.pool.step(actions, due))
        came = [(self._running[worker], episode) for worker, episode in episodes.items()]
        return [e.number for now, e in came if now is None or now.actions().digest != e.digest]


@dataclass
class _RunningEpisode:
    """A running episode: its number, its task, and its timesteps so far, actions included."""

    number: int
    task: str
    timesteps: list[Timestep]

    def actions(self) -> _Actions:
        """Returns what repeats the episode so far."""
        digest = 0
        for key, value in sorted(self.timesteps[-1].items()):
            digest = zlib.crc32(key.encode() + np.asarray(value).tobytes(), digest)
        actions = np.stack([timestep["action"] for timestep in self.timesteps])
        return _Actions(self.number, actions, digest)


@dataclass(frozen=True)
class _Actions:
    """The actions float32 [L, A] that repeat an episode, or the beginning of one.

    The first is zero. `digest` is the CRC-32 of the last timestep, so that a difference is noticed.
    """

    number: int
    actions: np.ndarray
    digest: int

    def to_json(self) -> dict[str, Any]:
        return {"number": self.number, "actions": _pack(self.actions), "digest": self.digest}

    @classmethod
    def from_json(cls, packed: Mapping[str, Any]) -> _Actions:
        return cls(int(packed["number"]), _unpack(packed["actions"]), int(packed["digest"]))


def _pack(array: np.ndarray) -> dict[str, Any]:
    """Returns an array of numbers as JSON's types, exactly."""
    data = base64.b64encode(array.tobytes()).decode()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": data}


def _unpack(packed: Mapping[str, Any]) -> np.ndarray:
    """Returns the array that `_pack` was given; raises KeyError, TypeError or ValueError."""
    dtype = np.dtype(packed["dtype"])
    if dtype.kind not in "biuf":
        raise ValueError(f"it holds {dtype}, expected numbers")
    raw = base64.b64decode(packed["data"], validate=True)
    return np.frombuffer(raw, dtype).reshape(packed["shape"]).copy()
