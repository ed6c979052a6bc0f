"""A run's own episodes, with real environments and files: stored, counted, resumed, shared."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import counting_env
import numpy as np
import pytest
from counting_env import ACTIONS, LONGEST, CountingEnv

from dreamer.config.config import load_config
from dreamer.data.episodes import save_episode
from dreamer.data.replay import Replay
from dreamer.envs.processes.pool import EnvPool
from dreamer.logs.logger import Logger
from dreamer.runs.rundir import RunDir, run_path
from dreamer.training.collector import stack
from dreamer.training.experience import ReplayCollector
from dreamer.training.interrupts import Interrupt, RetryWhileDiskFull, StopRequested

Maker = Callable[..., "Run"]
TASK = f"{Path(counting_env.__file__)}:make"


@pytest.fixture(scope="module")
def pool() -> Iterator[EnvPool]:
    with EnvPool(TASK, 2, 120.0, state=True) as made:
        yield made


class Run:
    """A collector with its replay, in a folder of its own or a shared one."""

    def __init__(
        self, pool: EnvPool, root: Path, episodes: Path, prefix: str = "s0e", exact: bool = False,
        others: tuple[Path, ...] = (), capacity: int = 0,
    ):  # fmt: skip
        self.messages: list[str] = []
        root.mkdir(exist_ok=True)
        logger = Logger(root, tensorboard=False, terminal="plain", total_steps=1)
        logger.close()  # nothing is written here, and warnings are pytest's again
        logger.message = self.messages.append  # type: ignore[method-assign]
        self.replay = Replay(
            episodes, cache_bytes=0, seed=0, obs_space=pool.obs_space, act_space=pool.act_space,
            others=others,
        )  # fmt: skip
        self.collector = ReplayCollector(
            pool=pool, replay=self.replay, logger=logger,
            retry_while_disk_full=RetryWhileDiskFull(0, Interrupt(), self.messages.append), seed=0,
            prefix=prefix, deterministic=exact, capacity=capacity,
        )  # fmt: skip

    def collect(self, agent_steps: int) -> None:
        self.collector.collect(self.collector.random_policy(), agent_steps)

    def state(self) -> dict[str, Any]:
        """The collector's state, as a checkpoint gives it back."""
        return json.loads(json.dumps(self.collector.state()))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name.split("-", 1)[1]: path.read_bytes() for path in folder.glob("*.npz")}


@pytest.fixture
def make(pool: EnvPool, tmp_path: Path) -> Maker:
    """Makes the same run again and again, as its process would when it is started again."""
    return functools.partial(Run, pool, tmp_path / "run", tmp_path / "episodes")


def test_what_came_after_the_checkpoint_counts_and_is_kept(make: Maker, tmp_path: Path):
    first = make()
    first.collect(60)
    state = first.state()
    first.collect(60)
    stored = contents(tmp_path / "episodes")
    assert len(stored) > len(state["members"]) > 0
    under_way = [e["steps"] for e in first.state()["collector"]["under_way"] if e]

    second = make()
    assert second.collector.resume(state)
    assert second.collector.agent_steps == 120 - sum(under_way)
    # Their numbers are not used again, so that two episodes never have one.
    lost = [e["number"] for e in first.state()["collector"]["under_way"] if e]
    assert second.state()["dropped"] == sum(n < second.state()["next_episode"] for n in lost)
    second.collect(60)
    after = contents(tmp_path / "episodes")
    assert stored.items() <= after.items() and len(after) > len(stored)
    assert {name.split("-", 1)[1] for name in second.replay.members} == set(after)


def test_a_warning_before_episodes_that_cannot_fit(make: Maker):
    run = make()
    run.collector.start(10)
    assert not run.messages
    run.collector.start(10**15)
    assert "will need about" in run.messages[0] and "are free on the disk" in run.messages[0]


def test_an_exact_run_collects_it_again_in_place(make: Maker, tmp_path: Path):
    first = make(exact=True)
    first.collect(60)
    state = first.state()
    first.collect(60)
    end, names = first.state(), set(first.replay.members)
    stored = {path.name: path.read_bytes() for path in (tmp_path / "episodes").glob("*.npz")}

    second = make(exact=True)
    assert second.collector.resume(state)
    assert second.state() == state and second.replay.members == state["members"]
    batch = second.replay.sample(3, 4, 5)
    assert {path.name for path in (tmp_path / "episodes").glob("*.npz")} == names
    second.collect(60)
    assert second.state() == end and not second.messages
    again = {path.name: path.read_bytes() for path in (tmp_path / "episodes").glob("*.npz")}
    assert again == stored
    third = make(exact=True)
    assert not third.replay.restrict(state["members"])
    for key, value in third.replay.sample(3, 4, 5).items():
        np.testing.assert_array_equal(value, batch[key])


def test_an_exact_run_without_a_checkpoint_begins_anew(make: Maker, tmp_path: Path):
    first = make(exact=True)
    first.collect(60)
    end, stored = first.state(), contents(tmp_path / "episodes")
    second = make(exact=True)
    assert second.collector.resume({}) and second.collector.agent_steps == 0
    assert len(second.replay) == 0
    second.collect(60)
    assert second.state() == end and contents(tmp_path / "episodes") == stored


def test_an_exact_run_that_misses_an_episode_says_so(make: Maker, tmp_path: Path):
    first = make(exact=True)
    first.collect(60)
    state = first.state()
    first.collect(60)
    gone = state["members"][0]
    (tmp_path / "episodes" / gone).unlink()
    stored = contents(tmp_path / "episodes")
    second = make(exact=True)
    assert second.collector.resume(state)
    (message,) = second.messages
    assert "not bit for bit" in message and gone in message
    second.collect(60)
    assert stored.items() <= contents(tmp_path / "episodes").items()


def test_a_run_whose_episodes_are_gone_says_so(make: Maker, tmp_path: Path):
    first = make()
    first.collect(60)
    state = first.state()
    (tmp_path / "episodes").rename(tmp_path / "moved")
    second = make()
    second.collector.resume(state)
    count = len(state["members"])
    assert f"{count} of the {count} episodes that the checkpoint lists" in second.messages[0]


def test_an_exact_run_resumes_a_fast_runs_checkpoint_exactly(make: Maker):
    first = make()
    first.collect(60)
    state = first.state()
    first.collect(60)
    second = make(exact=True)
    second.collector.resume(state)
    assert second.state() == state and not second.messages


def test_an_environment_that_is_no_function_of_its_seed_is_told(make: Maker):
    first = make(exact=True)
    first.collect(61)
    state = first.state()
    number = next(e["number"] for e in state["collector"]["under_way"] if e)
    for how in state["collector"]["exact"]:
        if how:
            how["digest"] += 1
    second = make(exact=True)
    second.collector.resume(state)
    assert f"episode {number} came out differently" in second.messages[0]


def test_episodes_under_way_are_repeated_together_and_a_stop_is_heeded(make: Maker):
    first = make(exact=True)
    first.collect(61)
    state = first.state()
    steps = [e["steps"] for e in state["collector"]["under_way"] if e]
    assert len(steps) == 2 and min(steps) > 0
    checks: list[int] = []

    def check() -> None:
        checks.append(len(checks))
        if len(checks) == 2:
            raise StopRequested(15)

    second = make(exact=True)
    with pytest.raises(StopRequested):
        second.collector.resume(state, check)
    third = make(exact=True)
    third.collector.resume(state, check)
    assert third.state() == state and not third.messages
    assert len(checks) == 2 + max(steps) + 1


@pytest.mark.parametrize("place", [1, -1])
def test_an_episode_set_aside_is_not_dropped_and_its_number_not_used_again(
    place: int, make: Maker, tmp_path: Path
):
    make().collect(80)
    paths = sorted((tmp_path / "episodes").glob("*.npz"), key=lambda path: path.name.split("-")[1])
    highest = int(paths[-1].name.split("-")[1].removeprefix("s0e"))
    paths[place].write_bytes(b"")
    with pytest.warns(UserWarning, match="set aside"):
        second = make()
    second.collector.resume({})
    state = second.state()
    assert state["next_episode"] == highest + 1
    assert state["dropped"] == highest + 1 - len(paths) >= 0


class Refusing:
    """A memory that refuses the first episodes it is given."""

    capacity = 1000

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals

    def remember(self, episode: dict[str, np.ndarray]) -> None:
        self.refusals -= 1
        if self.refusals >= 0:
            raise OSError("no more")


def test_withheld_episodes_are_on_disk_as_soon_as_they_end(make: Maker, tmp_path: Path):
    run = make()
    run.collect(40)
    members, batch = run.replay.members, run.replay.sample(3, 4, 5)
    run.collector.memory = Refusing(2)
    with pytest.raises(OSError, match="no more"), run.collector.withhold_episodes():
        run.collect(60)
        stored = set(contents(tmp_path / "episodes"))
        assert len(stored) > len(members) > 0
        # Batches are what they were, however the background and the sampler take turns.
        assert run.replay.members == members
        for key, value in run.replay.sample(3, 4, 5).items():
            np.testing.assert_array_equal(value, batch[key])
    with pytest.raises(OSError, match="no more"), run.collector.withhold_episodes():
        pass
    with run.collector.withhold_episodes():
        pass
    assert {name.split("-", 1)[1] for name in run.replay.members} == stored
    assert len(set(run.replay.members)) == len(run.replay.members)


def test_two_runs_of_one_seed_share_a_folder(pool: EnvPool, tmp_path: Path):
    shared = tmp_path / "shared"
    runs = [Run(pool, tmp_path / name, shared, f"{name}.s0e") for name in ("one", "two")]
    for _ in range(2):
        for run in runs:
            run.collect(40)
            for worker in range(2):
                run.collector._collector._running[worker] = None  # they share the pool as well
    stored = contents(shared)
    for name, run in zip(("one", "two"), runs, strict=True):
        own = [uid for uid in stored if uid.startswith(f"{name}.s0e")]
        assert len(own) == run.collector._collector.episodes > 2
        again = Run(pool, tmp_path / name, shared, f"{name}.s0e")
        assert len(again.replay) == len(stored)
        again.collector.resume({})
        assert again.collector.agent_steps == sum(
            int(uid.removesuffix(".npz").rpartition("-")[2]) - 1 for uid in own
        )


def make_foreign(folder: Path) -> str:
    """Stores an episode that no run has collected under an id of its own; returns its name."""
    timesteps = [CountingEnv().reset(0), CountingEnv().reset(0)]
    episode = {**stack(timesteps), "action": np.zeros((2, ACTIONS), np.float32)}
    return save_episode(folder, episode, "0-stored").name


def steps_of(folder: Path) -> int:
    return sum(int(name.removesuffix(".npz").rpartition("-")[2]) - 1 for name in contents(folder))


@pytest.mark.parametrize("exact", [False, True])
def test_the_disk_is_bounded_and_a_resumed_run_counts_all_the_same(
    exact: bool, make: Maker, tmp_path: Path
):
    folder = tmp_path / "episodes"
    foreign = make_foreign(folder)
    first = make(exact=exact, capacity=40)
    for _ in range(3):
        first.collect(60)
        state = first.state()
        first.collector.saved()
        own = [file for file in first.replay.files if file.uid.startswith("s0e")]
        assert set(first.replay.members) == {path.name for path in folder.glob("*.npz")}
        assert 40 - LONGEST < sum(file.length - 1 for file in own) <= 40
        assert foreign in first.replay.members
    first.collect(100)  # and no checkpoint follows
    end, stored = first.state(), contents(folder)
    assert end["deleted"] > state["deleted"] > 0 and steps_of(folder) > 60
    steps = first.collector.agent_steps - sum(
        e["steps"] for e in end["collector"]["under_way"] if e
    )
    second = make(exact=exact, capacity=40)
    assert second.collector.resume(state) and not second.messages
    if exact:
        assert second.state() == {**state, "expired": []}
        second.collect(100)
        assert second.state() == end
    else:
        assert second.collector.agent_steps == steps
        assert second.state()["dropped"] <= 2
        second.collect(60)
    second.collector.saved()
    assert foreign in second.replay.members and len(contents(folder)) < len(stored)


def test_a_kill_between_a_checkpoint_and_the_deletions_it_allows(make: Maker, tmp_path: Path):
    first = make(capacity=30)
    first.collect(100)
    state = first.state()
    second = make(capacity=30)
    second.collector.resume(state)
    assert second.collector.agent_steps == first.collector.agent_steps
    assert state["expired"] and second.state()["dropped"] <= 2
    assert set(state["members"]) == {path.name for path in (tmp_path / "episodes").glob("*.npz")}


def test_another_runs_episodes_are_read_and_its_folder_left_alone(pool: EnvPool, tmp_path: Path):
    """Also of a live run, whether the folder or the run is named."""
    overrides = {"logdir": str(tmp_path / "first")}
    with RunDir.open(load_config("debug", task=TASK, overrides=overrides)) as first:
        Run(pool, first.path, first.episodes).collect(60)
        stored = contents(first.episodes)
        for place in (first.episodes, first.path):
            overrides = {"logdir": str(tmp_path / "second"), "replay.directory": str(place)}
            with RunDir.open(load_config("debug", task=TASK, overrides=overrides)) as second:
                assert second.others == (first.episodes,)
                prefix, others = f"{second.owner}s0e", second.others
                run = Run(pool, second.path, second.episodes, prefix, others=others)
                assert len(run.replay) == len(stored)
                assert not run.collector.resume({}) and run.collector.agent_steps == 0
            config = RunDir.load(second.path)[1]
        assert config.replay.directory == str(first.path)
        # What a run reads is not read by those that read it.
        values = {"logdir": str(tmp_path / "third"), "replay.directory": str(second.path)}
        with RunDir.open(load_config("debug", task=TASK, overrides=values)) as third:
            assert third.others == (second.path / "episodes",)
        run.collect(60)
        assert len(contents(second.path / "episodes")) > 2
        assert len(run.replay) == len(stored) + len(contents(second.path / "episodes"))
        assert contents(first.episodes) == stored


def test_who_shares_a_folder_has_a_name_of_its_own(tmp_path: Path):
    def opened(logdir: str, **values: Any) -> str:
        overrides = {"logdir": str(tmp_path / logdir), **values}
        with RunDir.open(load_config("debug", task=TASK, overrides=overrides)) as run:
            return run.owner

    shared = {"replay.directory": str(tmp_path / "shared")}
    one, two = opened("one", **shared), opened("two", **shared)
    assert one != two and len(one) == 9 and opened("one", **shared) == one
    assert opened("three") == ""
    place = tmp_path / "one" / Path(run_path(load_config("debug", task=TASK))).relative_to("runs")
    values = {"logdir": str(tmp_path / "four"), "replay.directory": str(place)}
    with RunDir.open(load_config("debug", task=TASK, overrides=values)) as run:
        assert run.others == (tmp_path / "shared",)


def test_the_game_goes_on_where_a_lost_life_left_it(tmp_path: Path):
    """Episodes are lives: the worker of an exact run that is resumed plays the lives before again,
    also where the checkpoint lies between two lives."""
    task, settings = "atari_riverraid", {"training": True, "image": False, "state": True}
    with EnvPool(task, 1, 120.0, **settings) as pool:
        first = Run(pool, tmp_path / "run", tmp_path / "episodes", exact=True)
        while not pool.goes_on[0]:
            first.collect(1)
        state = first.state()
        first.collect(200)
        end, stored = first.state(), contents(tmp_path / "episodes")
    assert state["collector"]["under_way"] == [None] and len(state["collector"]["games"][0]) == 1
    for path in (tmp_path / "episodes").glob("*.npz"):
        if path.name not in state["members"]:
            path.unlink()
    with EnvPool(task, 1, 120.0, **settings) as pool:
        second = Run(pool, tmp_path / "run", tmp_path / "episodes", exact=True)
        second.collector.resume(state)
        assert second.state() == state and not second.messages
        second.collect(200)
        assert second.state() == end and contents(tmp_path / "episodes") == stored
    assert end["collector"]["under_way"][0]["steps"] == 200  # of the game's second life
