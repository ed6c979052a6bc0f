"""A run's experience: episodes collected into the replay, and the sequences drawn from it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from dreamer.data.episodes import EpisodeError, EpisodeFile, episode_uid
from dreamer.data.replay import Batch, DamagedEpisodeWarning, Replay
from dreamer.envs.processes.pool import EnvPool
from dreamer.io.disk import RetryWhileDiskFull, room_warning
from dreamer.logs.logger import Logger
from dreamer.training.collector import Collector, Episode, EpisodeSummary, Policy, random_policy
from dreamer.training.interfaces import EpisodeMemory

_NOT_EXACT = "warning: not bit for bit what it would have been: "


class ReplayBatches:
    """Sequences from the replay, drawn ahead by a thread.

    Args:
        replay: The replay.
        batch_size: B.
        batch_length: T.
        prefetch: Batches drawn ahead at most.
    """

    def __init__(self, replay: Replay, batch_size: int, batch_length: int, prefetch: int) -> None:
        self._replay, self._shape = replay, (batch_size, batch_length, prefetch)

    @property
    def ready(self) -> bool:
        """Whether there is an episode."""
        return len(self._replay) > 0

    def draw(self, first: int, count: int) -> Generator[tuple[int, Batch], None, None]:
        """Yields the batches [B, T, ...] of `count` updates, each with the number 1."""
        with contextlib.closing(self._replay.batches(first, count, *self._shape)) as batches:
            for batch in batches:
                yield 1, batch


class ReplayCollector:
    """Collects complete episodes into the replay, under the ids <prefix><number>.

    A resumed run keeps the episodes completed after its checkpoint: their steps count. A
    deterministic run draws no batch from them. It collects them again, with the same result, and
    thereby replaces their files.

    Args:
        pool: The environments.
        replay: Takes the episodes.
        logger: Takes their returns and lengths, and messages.
        retry_while_disk_full: Repeats what fails while the disk is full.
        seed: The run's seed.
        prefix: Beginning of the episodes' ids.
        deterministic: Whether a resumed run continues bit for bit.
        memory: Takes each episode too, once batches may hold it, and when the run resumes, the
            newest episodes on disk.

    Attributes:
        replay: The replay.
    """

    updates = 0

    def __init__(
        self,
        pool: EnvPool,
        replay: Replay,
        logger: Logger,
        retry_while_disk_full: RetryWhileDiskFull,
        *,
        seed: int,
        prefix: str,
        deterministic: bool,
        memory: EpisodeMemory | None = None,
    ) -> None:
        self.replay = replay
        self._pool, self._logger = pool, logger
        self._retry_while_disk_full, self._seed, self._prefix = retry_while_disk_full, seed, prefix
        self._deterministic, self._memory = deterministic, memory
        self._withheld: list[tuple[Episode, EpisodeFile]] | None = None  # None: none is
        self._continue_from(0, 0, 0)

    def _continue_from(self, agent_steps: int, dropped: int, next_episode: int) -> None:
        """Sets what earlier processes of the run have done."""
        self._agent_steps_before, self._dropped_before = agent_steps, dropped
        self._collector = Collector(self._pool, self._store, self._seed, next_episode)

    @property
    def agent_steps(self) -> int:
        """Actions carried out by the run's environments."""
        return self._agent_steps_before + self._collector.agent_steps

    @property
    def dropped(self) -> int:
        """Episodes that began and are neither stored nor running."""
        return self._dropped_before + self._collector.dropped

    def counters(self) -> dict[str, float]:
        """Returns how many episodes batches are drawn from, are dropped, and are set aside."""
        return {
            "episodes": len(self.replay),
            "dropped_episodes": self.dropped,
            "damaged_episodes": len(self.replay.set_aside()),
        }

    def start(self, agent_steps: int) -> None:
        """Warns if the disk has no room for that many agent steps."""
        needed = int(agent_steps * self.replay.timestep_bytes)
        frames = agent_steps * self._pool.action_repeat
        warning = room_warning(self.replay.directory, needed, f"the episodes of {frames:,} steps")
        if warning:
            self._logger.message(warning)

    def close(self) -> None:
        """Does nothing: the pool belongs to the caller."""

    def random_policy(self) -> Policy:
        """Returns a policy of uniform actions, which follow from the seed and the steps so far."""
        calls = self.agent_steps // self._pool.num_envs
        return random_policy(self._pool.act_space, self._seed, calls)

    def collect(self, policy: Policy, agent_steps: int) -> None:
        """Collects at least that many agent steps; see `Collector.collect`."""
        self._log_tasks(self._collector.collect(policy, agent_steps))

    def _log_tasks(self, summaries: list[EpisodeSummary]) -> None:
        """Logs the returns of each of several tasks; `_add` logs those of all together."""
        if len(set(self._pool.tasks)) > 1:
            for summary in summaries:
                self._logger.scalars({f"train/{summary.task}/return": summary.episode_return})

    def _store(self, episode: Episode, number: int) -> None:
        """Writes an episode to disk at once, so that no kill loses it."""
        uid = f"{self._prefix}{number:08d}"
        file = self._retry_while_disk_full(lambda: self.replay.write(episode, uid))
        if self._withheld is None:
            self._add(episode, file)
        else:
            self._withheld.append((episode, file))

    def _add(self, episode: Episode, file: EpisodeFile) -> None:
        """Lets batches hold an episode that is on disk."""
        self.replay.take_in(file)
        if self._memory:
            self._memory.remember(episode)
        length = (len(episode["reward"]) - 1) * self._pool.action_repeat
        self._logger.scalars(
            {"train/return": float(episode["reward"].sum()), "train/length": length}
        )

    @contextlib.contextmanager
    def withhold_episodes(self) -> Iterator[None]:
        """Within it, complete episodes are written but not drawn from; at its end they are added.

        Another thread draws batches meanwhile, which must not depend on when an episode ends.
        """
        self._withheld = self._withheld or []
        try:
            yield
        finally:
            while self._withheld:
                self._add(*self._withheld[0])
                self._withheld.pop(0)
            self._withheld = None

    # ------------------------------------------------------------ checkpoints

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps, as JSON's types."""
        # Tries again to store an episode for which the disk had no room.
        self._log_tasks(self._collector.hand_over())
        return {
            "agent_steps": self.agent_steps,
            "next_episode": self._collector.next_episode,
            "dropped": self.dropped,
            "members": self.replay.members,
            "collector": self._collector.state(with_actions=self._deterministic),
        }

    def resume(self, state: Mapping[str, Any], check: Callable[[], None] = lambda: None) -> bool:
        """Continues from what `state` returned, {} if no checkpoint holds it.

        Args:
            state: See above.
            check: Called before each step that repeats a running episode; what it raises ends that.

        Returns:
            Whether there are episodes of this run.
        Raises:
            KeyError, TypeError, ValueError: `state` did not return that.
        """
        own = self._own_episodes()
        if not (self._deterministic and self._resume_exactly(state, own, check)):
            self._resume_with_all(state, own)
        if self._memory:
            self._fill(self._memory, resumed=bool(state or own))
        return bool(own)

    def _resume_with_all(
        self, state: Mapping[str, Any], own: Mapping[str, tuple[int, int]]
    ) -> None:
        """Keeps every episode on disk; those that were running are dropped."""
        steps = state.get("agent_steps", 0) + _steps_since(state, own)
        aside = [self._number(uid) for uid in self.replay.set_aside()]
        numbers = {number for number in aside if number is not None}
        numbers |= {number for number, _ in own.values()}
        first = max(state.get("next_episode", 0), max(numbers, default=-1) + 1)
        self._continue_from(steps, first - len(numbers), first)

    def _resume_exactly(
        self, state: Mapping[str, Any], own: Mapping[str, tuple[int, int]],
        check: Callable[[], None],
    ) -> bool:  # fmt: skip
        """Restores what the state lists; returns False if that cannot be done."""
        if state and not {"exact", "games", "policy"} <= set(state["collector"]):
            self._logger.message(
                f"{_NOT_EXACT}the checkpoint lacks the actions of the running episodes, because "
                "its run was not deterministic; the run continues with every episode there is"
            )
            return False
        members = state["members"] if state else set(self.replay.members) - set(own)
        if missing := self.replay.restrict(members):
            self._logger.message(
                f"{_NOT_EXACT}{min(missing)} is missing ({len(missing)} in all); the run continues "
                "with every episode there is"
            )
            return False
        self._continue_from(
            state.get("agent_steps", 0), state.get("dropped", 0), state.get("next_episode", 0)
        )
        for number in self._collector.restore(state["collector"], check) if state else ():
            self._logger.message(
                f"{_NOT_EXACT}episode {number} came out differently, so the environment does not "
                "follow from its seed and actions"
            )
        return True

    def _number(self, uid: str) -> int | None:
        """Returns the number of an episode that this run has collected; None for others."""
        number = uid.removeprefix(self._prefix)
        return int(number) if number != uid and number.isdigit() else None

    def _own_episodes(self) -> dict[str, tuple[int, int]]:
        """Returns number and agent steps of this run's episodes, by the file's name."""
        own = {}
        for path, length in self.replay.files():
            number = self._number(episode_uid(path))
            if number is not None:
                own[path.name] = number, length - 1
        return own

    def _fill(self, memory: EpisodeMemory, resumed: bool) -> None:
        """Fills an agent's memory with the newest episodes on disk, as many as fit."""
        chosen: list[Path] = []
        room = memory.capacity
        for path, length in reversed(self.replay.files()):
            if room < 0:  # not at 0: a full ring had begun to drop the episode before
                break
            room -= length
            chosen.append(path)
        for path in reversed(chosen):
            try:
                memory.remember(EpisodeFile(path).read())
            except EpisodeError as error:
                warnings.warn(f"episode not used: {error}", DamagedEpisodeWarning, stacklevel=2)
        if resumed and self._deterministic and self._pool.num_envs > 1:
            self._logger.message(
                f"{_NOT_EXACT}unless all episodes are equally long, because they come back in the "
                "order in which they began, not in which they ended"
            )


def _steps_since(state: Mapping[str, Any], own: Mapping[str, tuple[int, int]]) -> int:
    """Returns the agent steps on disk that were collected after a checkpoint.

    Args:
        state: The checkpoint's: its members, and the episodes that were running; {} without one.
        own: File name -> (number, agent steps) of the run's own episodes on disk.
    """
    members = set(state["members"]) if state else set()
    running = state["collector"]["under_way"] if state else []
    begun = {e["number"]: e["steps"] for e in running if e}
    later = [value for name, value in own.items() if name not in members]
    return sum(steps - begun.get(number, 0) for number, steps in later)
