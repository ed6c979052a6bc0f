"""A run's experience: the episodes that it collects into its replay, or finds there."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from rich.filesize import decimal

from dreamer.data.episodes import EpisodeError, EpisodeFile, episode_uid
from dreamer.data.replay import DamagedEpisodeWarning, Replay, timestep_bytes
from dreamer.envs.processes.pool import EnvPool
from dreamer.errors import UserError
from dreamer.logs.logger import Logger
from dreamer.training.collector import Collector, Episode, EpisodeSummary, Policy, random_policy
from dreamer.training.interfaces import EpisodeMemory
from dreamer.training.interrupts import RetryWhileDiskFull


@dataclass(eq=False, kw_only=True)
class StoredEpisodes:
    """Takes the place of a collector where an agent learns from stored episodes alone.

    Steps are counted as if collected, so that updates, evaluations and checkpoints are due as in
    other runs. No environment is stepped, and no file is written.
    """

    replay: Replay
    logger: Logger
    deterministic: bool  # whether a resumed run draws from the same episodes
    updates: ClassVar[int] = 0
    agent_steps: int = field(default=0, init=False)

    def counters(self) -> dict[str, float]:
        """Returns the numbers of episodes to learn from, and of damaged ones."""
        return {"episodes": len(self.replay), "damaged_episodes": damaged_episodes(self.replay)}

    def start(self, agent_steps: int) -> None:
        """Raises UserError if there is nothing to learn from."""
        if agent_steps and not self.replay.files:
            raise UserError(
                f"train.offline learns from stored episodes alone, but {self.replay.directory} "
                "holds none; name a folder of episodes, or another run, by --replay.directory"
            )

    def close(self) -> None:
        """Does nothing."""

    def random_policy(self) -> None:
        """Returns None, because there is nothing to fill."""

    def collect(self, policy: Policy, agent_steps: int) -> None:
        """Counts the steps."""
        self.agent_steps += agent_steps

    def free_environments(self) -> None:
        """Does nothing: no episode is running."""

    def withhold_episodes(self) -> contextlib.AbstractContextManager[None]:
        """Does nothing: there are no new episodes."""
        return contextlib.nullcontext()

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps, as JSON's types."""
        return {
            "agent_steps": self.agent_steps, "next_episode": 0, "members": self.replay.members,
        }  # fmt: skip

    def saved(self) -> None:
        """Does nothing: no file is deleted."""

    def resume(self, state: Mapping[str, Any], check: Callable[[], None] = lambda: None) -> bool:
        """Continues from a checkpoint's `state`, {} without a checkpoint."""
        self.agent_steps = state.get("agent_steps", 0)
        if self.deterministic and state and (lost := self.replay.restrict(state["members"])):
            self.logger.message(
                "warning: the resumed run is not bit for bit the same: "
                f"{min(lost)} is missing ({len(lost)} in all)"
            )
        return False


def damaged_episodes(replay: Replay) -> int:
    """Returns how many damaged files were set aside, by earlier processes too, or left out."""
    return len(replay.set_aside()) + replay.left


@dataclass(eq=False, kw_only=True)
class ReplayCollector:
    """Collects complete episodes into the replay, under the ids <prefix><number>.

    A resumed run keeps the episodes completed after its checkpoint: their steps count. A
    deterministic run draws no batch from them. It collects them again, with the same result, and
    thereby replaces their files.
    """

    pool: EnvPool
    replay: Replay
    logger: Logger  # takes returns and lengths of episodes, and messages
    retry_while_disk_full: RetryWhileDiskFull
    seed: int  # the run's
    prefix: str  # beginning of the episodes' ids
    deterministic: bool  # whether a resumed run continues bit for bit
    capacity: int = 0  # agent steps of this run's episodes that are kept; 0: all
    # Takes each episode too, once batches may hold it; and the newest ones when the run resumes.
    memory: EpisodeMemory | None = None
    # Called with each episode, once batches may hold it.
    on_episode: Callable[[Episode], None] = lambda episode: None
    updates: ClassVar[int] = 0  # made while collecting: none, but A3C's collector makes all
    # Episodes that batches may not hold yet; None: none is withheld.
    _withheld: list[tuple[Episode, EpisodeFile]] | None = field(default=None, init=False)
    _cutting: bool = field(default=False, init=False)
    _expired: list[EpisodeFile] = field(default_factory=list, init=False)  # see `_limit`
    _deleted: int = field(default=0, init=False)  # episodes deleted so far, `_expired` included

    def __post_init__(self) -> None:
        self._continue_from(0, 0, 0)

    def _continue_from(self, agent_steps: int, dropped: int, next_episode: int) -> None:
        """Sets what earlier processes of the run have done."""
        self._collector = Collector(self.pool, self._store, self.seed, next_episode)
        self._collector.agent_steps, self._collector.dropped = agent_steps, dropped

    @property
    def agent_steps(self) -> int:
        """Actions carried out by the run's environments, earlier processes included."""
        return self._collector.agent_steps

    def counters(self) -> dict[str, float]:
        """Returns the numbers of episodes in the replay, dropped, and damaged (set aside)."""
        return {
            "episodes": len(self.replay),
            "dropped_episodes": self._collector.dropped,
            "damaged_episodes": damaged_episodes(self.replay),
        }

    def start(self, agent_steps: int) -> None:
        """Warns if the disk has no room for the episodes of `agent_steps` agent steps.

        Episodes that may never end become no longer than the run.
        """
        total = -(-(self.agent_steps + agent_steps) // self.pool.num_envs)
        self._collector.longest = min(self._collector.longest, total + 1)
        agent_steps = min(agent_steps, self.capacity or agent_steps)
        needed = agent_steps * timestep_bytes(self.pool.obs_space, self.pool.act_space)
        folder = self.replay.directory
        if needed > (free := shutil.disk_usage(folder).free):
            self.logger.message(
                f"warning: the episodes of {agent_steps * self.pool.action_repeat:,} steps will "
                f"need about {decimal(needed)}, but only {decimal(free)} are free on the disk of "
                f"{folder}; free some space, choose another --logdir or --replay.directory, or "
                "keep the newest episodes only (--replay.capacity)"
            )

    def close(self) -> None:
        """Ends what `start` has begun: nothing here, because the pool belongs to the caller."""

    def random_policy(self) -> Policy:
        """Returns a policy of uniform actions, which follow from the seed and the steps so far."""
        calls = self.agent_steps // self.pool.num_envs
        return random_policy(self.pool.act_space, self.seed, calls)

    def collect(self, policy: Policy, agent_steps: int) -> None:
        """Collects at least `agent_steps` agent steps; see `Collector.collect`."""
        self._log_tasks(self._collector.collect(policy, agent_steps))

    def _log_tasks(self, summaries: list[EpisodeSummary]) -> None:
        """Logs the returns of each of several tasks; `_add` logs those of all together."""
        if len(set(self.pool.tasks)) > 1:
            for summary in summaries:
                self.logger.scalars({f"train/{summary.task}/return": summary.episode_return})

    def _store(self, episode: Episode, number: int) -> None:
        """Writes an episode to disk at once, so that no kill loses it."""
        uid = f"{self.prefix}{number:08d}"
        file = self.retry_while_disk_full(lambda: self.replay.write(episode, uid))
        if self._withheld is None:
            self._add(episode, file)
        else:
            self._withheld.append((episode, file))

    def _add(self, episode: Episode, file: EpisodeFile) -> None:
        """Lets batches hold an episode that is on disk."""
        self.replay.take_in(file)
        self._limit()
        if self.memory:
            self.memory.remember(episode)
        if self._cutting:
            return
        length = (len(episode["reward"]) - 1) * self.pool.action_repeat
        self.logger.scalars(
            {"train/return": float(episode["reward"].sum()), "train/length": length}
        )
        self.on_episode(episode)

    def free_environments(self) -> None:
        """Ends the running episodes, whose environments evaluations need; keeps them, cut short."""
        self._cutting = True  # their returns are no scores
        try:
            self._collector.cut()
        finally:
            self._cutting = False

    def _limit(self) -> None:
        """Takes the oldest of this run's episodes out of the replay, down to its capacity.

        Their files are deleted once a checkpoint does without them, so that a kill loses nothing.
        """
        own = [file for file in self.replay.files if self._is_own(file)] if self.capacity else []
        excess = sum(file.length - 1 for file in own) - self.capacity
        for file in own[:-1]:
            if excess <= 0:
                break
            excess -= file.length - 1
            self.replay.take_out(file)
            self._expired.append(file)
            self._deleted += 1

    def saved(self) -> None:
        """Deletes the files that the checkpoint just written does without."""
        while self._expired:
            with contextlib.suppress(OSError):
                self._expired.pop().path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def withhold_episodes(self) -> Iterator[None]:
        """Within this block, complete episodes are only written; its end lets batches hold them.

        Another thread draws batches meanwhile, and they must not depend on when an episode ends.
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
            "dropped": self._collector.dropped,
            "members": self.replay.members,
            "expired": [file.path.name for file in self._expired],
            "deleted": self._deleted,
            "collector": self._collector.state(),
        }

    def resume(self, state: Mapping[str, Any], check: Callable[[], None] = lambda: None) -> bool:
        """Continues from a checkpoint's `state`, {} without a checkpoint.

        Calls `check` before each step that repeats a running episode; its exceptions pass.
        Returns whether there are episodes of this run. Raises as `Collector.restore`.
        """
        self._deleted = state.get("deleted", 0)
        files = [file for file in self.replay.files if self._is_own(file)]
        # A kill may have come between a checkpoint and the deletions that it allows.
        self._expired = [file for file in files if file.path.name in state.get("expired", ())]
        for file in self._expired:
            self.replay.take_out(file)
        self.saved()
        # Number and agent steps of this run's episodes, by the file's name.
        own = {
            file.path.name: (self._number(file.uid) or 0, file.length - 1)
            for file in files if file in self.replay.files
        }  # fmt: skip
        if self.deterministic and self._restrict(state, own):
            self._resume_exactly(state, check)
        else:
            self._resume_with_all(state, own)
        if self.memory:
            self._fill(self.memory, resumed=bool(state or own))
        return bool(own)

    def _number(self, uid: str) -> int | None:
        """Returns the number of an episode that this run has collected; None for others."""
        number = uid.removeprefix(self.prefix)
        return int(number) if number != uid and number.isdigit() else None

    def _is_own(self, file: EpisodeFile) -> bool:
        own_folder = file.path.parent == self.replay.directory
        return own_folder and self._number(file.uid) is not None

    def _warn(self, reason: str) -> None:
        self.logger.message(f"warning: the resumed run is not bit for bit the same: {reason}")

    def _resume_with_all(
        self, state: Mapping[str, Any], own: Mapping[str, tuple[int, int]]
    ) -> None:
        """Keeps every episode on disk; those that were running are dropped."""
        members = set(state["members"]) if state else set()
        aside = self.replay.set_aside()
        gone = [n for n in members - set(self.replay.members) if episode_uid(Path(n)) not in aside]
        if gone and not self.deterministic:  # which has said so already
            self.logger.message(
                f"warning: {len(gone)} of the {len(members)} episodes that the checkpoint lists "
                f"are not in {self.replay.directory}, such as {min(gone)}; if you have moved them, "
                "say where by --replay.directory"
            )
        running = state["collector"]["under_way"] if state else []
        counted = {e["number"]: e["steps"] for e in running if e}
        later = [value for name, value in own.items() if name not in members]
        steps = sum(steps - counted.get(number, 0) for number, steps in later)
        present = (*map(self._number, aside), *(number for number, _ in own.values()))
        numbers = {number for number in present if number is not None}
        first = max(state.get("next_episode", 0), *(number + 1 for number in numbers), 0)
        dropped = first - len(numbers) - self._deleted
        self._continue_from(state.get("agent_steps", 0) + steps, dropped, first)

    def _restrict(self, state: Mapping[str, Any], own: Mapping[str, tuple[int, int]]) -> bool:
        """Draws from the episodes that the state lists; returns False if one is missing."""
        members = state["members"] if state else set(self.replay.members) - set(own)
        if missing := self.replay.restrict(members):
            self._warn(
                f"{min(missing)} is missing ({len(missing)} in all); the run continues with every "
                "episode there is"
            )
        return not missing

    def _resume_exactly(self, state: Mapping[str, Any], check: Callable[[], None]) -> None:
        """Restores the episodes that were running."""
        counts = (state.get(key, 0) for key in ("agent_steps", "dropped", "next_episode"))
        self._continue_from(*counts)
        for number in self._collector.restore(state["collector"], check) if state else ():
            self._warn(
                f"episode {number} came out differently, so the environment does not follow from "
                "its seed and actions"
            )

    def _fill(self, memory: EpisodeMemory, resumed: bool) -> None:
        """Fills an agent's memory with the newest episodes on disk, as many as fit."""
        chosen, room = [], memory.capacity
        for file in reversed(self.replay.files):
            if room < 0:  # beyond 0, because a full ring has dropped some timesteps
                break
            room -= file.length
            chosen.append(file)
        for file in reversed(chosen):
            try:
                memory.remember(file.read())
            except EpisodeError as error:
                warnings.warn(f"episode not used: {error}", DamagedEpisodeWarning, stacklevel=2)
        if resumed and self.deterministic and self.pool.num_envs > 1:
            self._warn(
                "its memory holds the episodes in the order in which they began, not ended (if all "
                "are equally long, the order is the same)"
            )
        if resumed and self.deterministic and 0 < self.capacity < memory.capacity:
            self._warn("replay.capacity keeps fewer steps than its memory holds")
