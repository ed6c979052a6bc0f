"""A run's own episodes: collected, numbered, stored, and found again when the run goes on."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dreamer.data.episodes import EpisodeFile, episode_uid
from dreamer.data.replay import Replay
from dreamer.envs.processes.pool import EnvPool
from dreamer.io.disk import Patience
from dreamer.logs.logger import Logger
from dreamer.training.collector import (
    Collector,
    Episode,
    EpisodeSummary,
    Policy,
    UnderWay,
    random_policy,
)

_NOT_EXACT = "warning: not bit for bit what it would have been: "


class Collection:
    """Collects complete episodes into the replay, under the ids <prefix><number>.

    Args:
        pool: The environments.
        replay: Takes the episodes.
        logger: Takes their returns and lengths, and messages.
        patience: Waits where the disk is full.
        seed: The run's.
        prefix: Of the ids.
        exact: Whether `resume` goes on bit for bit.

    Attributes:
        on_episode: Called with each episode once batches may hold it; None for nothing.
    """

    def __init__(
        self,
        pool: EnvPool,
        replay: Replay,
        logger: Logger,
        patience: Patience,
        *,
        seed: int,
        prefix: str,
        exact: bool,
    ) -> None:
        self._pool, self._replay, self._logger = pool, replay, logger
        self._patience, self._seed, self._prefix = patience, seed, prefix
        self._exact = exact
        self._held: list[tuple[Episode, EpisodeFile]] | None = None  # None: taken in as they end
        self.on_episode: Callable[[Episode], None] | None = None
        self._begin(0, 0, 0)

    def _begin(self, agent_steps: int, dropped: int, first: int) -> None:
        """Begins with what earlier processes of the run have done."""
        self._agent_steps_before, self._dropped_before = agent_steps, dropped
        self._collector = Collector(self._pool, self._take_in, self._seed, first)

    @property
    def agent_steps(self) -> int:
        """Actions carried out by the run's environments."""
        return self._agent_steps_before + self._collector.agent_steps

    @property
    def dropped(self) -> int:
        """Episodes that began and are neither stored nor under way."""
        return self._dropped_before + self._collector.dropped

    def collect(self, policy: Policy, agent_steps: int) -> None:
        """Takes at least that many agent steps; see `Collector.collect`."""
        self._log_tasks(self._collector.collect(policy, agent_steps))

    def _log_tasks(self, summaries: list[EpisodeSummary]) -> None:
        """Of several tasks, each one's returns; `_take_in` logs those of all together."""
        if len(set(self._pool.tasks)) > 1:
            for summary in summaries:
                self._logger.scalars({f"train/{summary.task}/return": summary.episode_return})

    def hold(self) -> None:
        """Until `store`, complete episodes are written, but kept from the replay's batches, which
        another thread is drawing."""
        self._held = []

    def store(self) -> None:
        """Hands the episodes that were held to the replay, and from now on each as it ends."""
        while self._held:
            self._join(*self._held[0])
            self._held.pop(0)
        self._held = None

    def random_policy(self) -> Policy:
        """Uniform actions, those of a call being a function of how many calls were before."""
        calls = self.agent_steps // self._pool.num_envs
        return random_policy(self._pool.act_space, self._seed, calls)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        # An episode for which there was no room, if there is now.
        self._log_tasks(self._collector.hand_over())
        return {
            "agent_steps": self.agent_steps,
            "next_episode": self._collector.next_episode,
            "dropped": self.dropped,
            "members": self._replay.members,
            "collector": collector_state(self._collector, self._exact),
        }

    def resume(self, state: Mapping[str, Any], check: Callable[[], None] = lambda: None) -> bool:
        """Goes on from what `state` gave, or {} where no checkpoint holds it.

        Episodes completed after the checkpoint are kept: their steps count as done. An exact run
        draws no batch from them, collects them again and thereby writes the same files anew; while
        it repeats those that were under way, `check` may raise to break that off.

        Returns:
            Whether there are any episodes of this run.
        Raises:
            KeyError, TypeError, ValueError: it is not what `state` gives.
        """
        own = self._own_episodes()
        if not (self._exact and self._resume_exactly(state, own, check)):
            self._resume_keeping(state, own)
        return bool(own)

    def _resume_keeping(
        self, state: Mapping[str, Any], own: Mapping[str, tuple[int, int]]
    ) -> None:
        """Keeps every episode there is; those that were under way are dropped."""
        if "members" in state:
            steps = state["agent_steps"] + steps_since(state, own)
        else:  # no checkpoint, or one of an older version
            steps = max(state.get("agent_steps", 0), sum(steps for _, steps in own.values()))
        aside = [self._number(uid) for uid in self._replay.set_aside()]
        numbers = {number for number in aside if number is not None}
        numbers |= {number for number, _ in own.values()}
        first = max(state.get("next_episode", 0), max(numbers, default=-1) + 1)
        self._begin(steps, first - len(numbers), first)

    def _resume_exactly(
        self, state: Mapping[str, Any], own: Mapping[str, tuple[int, int]],
        check: Callable[[], None],
    ) -> bool:  # fmt: skip
        """Restores what the state lists; False where that cannot be done."""
        if "collector" in state and not is_whole(state["collector"]):
            self._logger.message(
                f"{_NOT_EXACT}the checkpoint has not what was done in the episodes under way (its "
                "run was not deterministic, or of an older version); the run goes on with every "
                "episode there is"
            )
            return False
        members = state.get("members", None if state else [*set(self._replay.members) - set(own)])
        missing = {"the list of episodes"} if members is None else self._replay.restrict(members)
        if missing:
            self._logger.message(
                f"{_NOT_EXACT}{min(missing)} is missing ({len(missing)} in all); the run goes on "
                "with every episode there is"
            )
            return False
        self._begin(
            state.get("agent_steps", 0), state.get("dropped", 0), state.get("next_episode", 0)
        )
        if not state:
            return True
        for number in restore_collector(self._collector, state["collector"], check):
            self._logger.message(
                f"{_NOT_EXACT}episode {number} came out otherwise, so the environment is no "
                "function of its seed and actions"
            )
        return True

    def _take_in(self, episode: Episode, number: int) -> None:
        """On the disk as soon as it is complete, whatever may end the process next."""
        uid = f"{self._prefix}{number:08d}"
        file = self._patience.keep_trying(lambda: self._replay.write(episode, uid))
        if self._held is None:
            self._join(episode, file)
        else:
            self._held.append((episode, file))

    def _join(self, episode: Episode, file: EpisodeFile) -> None:
        self._replay.take_in(file)
        if self.on_episode:
            self.on_episode(episode)
        length = (len(episode["reward"]) - 1) * self._pool.action_repeat
        self._logger.scalars(
            {"train/return": float(episode["reward"].sum()), "train/length": length}
        )

    def _number(self, uid: str) -> int | None:
        """The number of an episode that this run collected; None for others."""
        number = uid.removeprefix(self._prefix)
        return int(number) if number != uid and number.isdigit() else None

    def _own_episodes(self) -> dict[str, tuple[int, int]]:
        """Number and agent steps of the episodes that this run collected, by the file's name."""
        own = {}
        for path, length in self._replay.files():
            number = self._number(episode_uid(path))
            if number is not None:
                own[path.name] = number, length - 1
        return own


_KINDS = "biuf"  # NumPy's kinds of numbers that are stored here


def collector_state(collector: Collector, whole: bool) -> dict[str, Any]:
    """A collector's state as JSON.

    Args:
        collector: Whose.
        whole: Whether the policy's state and the actions of episodes under way belong to it, which
            an exact resumption needs; else only which episodes these are and how long so far.
    """
    episodes = collector.under_way()
    lengths = [e and {"number": e.number, "steps": len(e.actions) - 1} for e in episodes]
    state: dict[str, Any] = {"under_way": lengths}
    if not whole:
        return state
    exact = [e and _how(e) for e in episodes]
    policy = collector.state
    packed = None if policy is None else {k: pack(np.asarray(v)) for k, v in policy.items()}
    games = [[{"number": e.number, **_how(e)} for e in game] for game in collector.games()]
    return {**state, "exact": exact, "games": games, "policy": packed}


def is_whole(state: Mapping[str, Any]) -> bool:
    """Whether `collector_state` gave that state whole."""
    return all(key in state for key in ("exact", "games", "policy"))


def restore_collector(
    collector: Collector, state: Mapping[str, Any], check: Callable[[], None]
) -> list[int]:
    """Puts back what `collector_state` gave whole, as `Collector.restore` does.

    Raises:
        KeyError, TypeError, ValueError: it was not given whole, or not by us.
    """
    episodes = [
        where and _under_way(where["number"], how)
        for where, how in zip(state["under_way"], state["exact"], strict=True)
    ]
    games = [[_under_way(e["number"], e) for e in game] for game in state["games"]]
    policy = state["policy"]
    policy = policy and {k: unpack(v) for k, v in policy.items()}
    return collector.restore(episodes, games, policy, check)


def steps_since(state: Mapping[str, Any], own: Mapping[str, tuple[int, int]]) -> int:
    """Agent steps that were collected after a checkpoint and are on disk.

    Args:
        state: Of the checkpoint: its members and the episodes that were under way.
        own: File name -> (number, agent steps) of the run's own episodes on disk.
    """
    members = set(state["members"])
    begun = {e["number"]: e["steps"] for e in state["collector"]["under_way"] if e}
    later = [at for name, at in own.items() if name not in members]
    return sum(steps - begun.get(number, 0) for number, steps in later)


def _how(episode: UnderWay) -> dict[str, Any]:
    return {"actions": pack(episode.actions), "digest": episode.digest}


def _under_way(number: Any, how: Mapping[str, Any]) -> UnderWay:
    return UnderWay(int(number), unpack(how["actions"]), int(how["digest"]))


def pack(array: np.ndarray) -> dict[str, Any]:
    """An array of numbers as JSON, exactly."""
    raw = np.ascontiguousarray(array).tobytes()
    return {
        "dtype": array.dtype.str, "shape": list(array.shape),
        "data": base64.b64encode(raw).decode("ascii"),
    }  # fmt: skip


def unpack(packed: Mapping[str, Any]) -> np.ndarray:
    """The array that was packed.

    Raises:
        KeyError, TypeError, ValueError: it is not what `pack` gives.
    """
    dtype = np.dtype(packed["dtype"])
    if dtype.kind not in _KINDS:
        raise ValueError(f"it holds {dtype}, expected numbers")
    raw = base64.b64decode(packed["data"], validate=True)
    return np.frombuffer(raw, dtype).reshape(packed["shape"]).copy()
