"""Collecting with real environments: counters, numbering, seeds, and handing over episodes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import counting_env
import numpy as np
import pytest

from dreamer.envs.processes.pool import EnvPool
from dreamer.envs.spec import Space
from dreamer.training.collector import (
    Collector,
    EpisodeSummary,
    _pack,
    _unpack,
    episode_seed,
    random_policy,
)

TASK = f"{Path(counting_env.__file__)}:make"
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def pools() -> Iterator[dict[int, EnvPool]]:
    with EnvPool(TASK, 1, 60.0, state=True) as one, EnvPool(TASK, 3, 60.0, state=True) as three:
        yield {1: one, 3: three}


class Keeper:
    """Keeps the episodes it is handed, by number."""

    def __init__(self) -> None:
        self.episodes: dict[int, Arrays] = {}

    def __call__(self, episode: Arrays, number: int) -> None:
        assert number not in self.episodes
        self.episodes[number] = episode


def reflex(timesteps: Arrays, state: Any) -> tuple[np.ndarray, int]:
    """A policy that is a function of each timestep alone; its state counts its calls."""
    seeds_and_steps = [counting_env.decode(image)[:2] for image in timesteps["image"]]
    actions = [[(seed % 7 + 1) / 8, (step + 1) / 16] for seed, step in seeds_and_steps]
    return np.array(actions, np.float32), (0 if state is None else state) + 1


def length_of(number: int, seed: int = 5) -> int:
    return counting_env.episode_length(episode_seed(seed, number))


def test_steps_are_counted_and_rounded_up_to_all_workers(pools: dict[int, EnvPool]) -> None:
    collector = Collector(pools[3], Keeper(), seed=5)
    collector.collect(reflex, 1)
    assert collector.agent_steps == 3
    collector.collect(reflex, 6)
    assert collector.agent_steps == 9
    collector.collect(reflex, 0)
    assert collector.agent_steps == 9


def test_episode_is_what_the_environment_and_policy_made(pools: dict[int, EnvPool]) -> None:
    keeper = Keeper()
    collector = Collector(pools[1], keeper, seed=5, next_episode=4)
    (summary,) = collector.collect(reflex, length_of(4))
    episode = keeper.episodes[4]
    length = length_of(4)
    assert {key: (value.shape, str(value.dtype)) for key, value in episode.items()} == {
        "image": ((length + 1, 8, 8, 3), "uint8"),
        "vector": ((length + 1, 4), "float32"),
        "action": ((length + 1, 2), "float32"),
        **dict.fromkeys(("reward", "cont"), ((length + 1,), "float32")),
        **dict.fromkeys(("is_first", "is_last", "is_terminal"), ((length + 1,), "bool")),
    }
    assert not episode["action"][0].any()
    assert episode["reward"][0] == 0
    seed = episode_seed(5, 4)
    total = pytest.approx(float(episode["reward"].sum()))
    assert summary == EpisodeSummary(4, total, length, 2 * length, seed % 2 == 0, TASK)
    assert collector.episodes == 1


@pytest.mark.parametrize("num_envs", [1, 3])
def test_partial_episodes_and_state_survive_between_calls(
    pools: dict[int, EnvPool], num_envs: int
) -> None:
    whole, parts = Keeper(), Keeper()
    Collector(pools[num_envs], whole, seed=5).collect(reflex, 90)
    collector = Collector(pools[num_envs], parts, seed=5)
    for steps in (3, 30, 12, 45):
        collector.collect(reflex, steps)
    assert collector._policy_state == 90 // num_envs
    assert whole.episodes.keys() == parts.episodes.keys()
    assert len(whole.episodes) > 5
    for number, episode in whole.episodes.items():
        for key, value in episode.items():
            np.testing.assert_array_equal(parts.episodes[number][key], value)


def test_episode_depends_on_seed_and_number_not_on_the_workers(pools: dict[int, EnvPool]) -> None:
    one, three = Keeper(), Keeper()
    Collector(pools[1], one, seed=5).collect(reflex, 60)
    Collector(pools[3], three, seed=5).collect(reflex, 90)
    common = one.episodes.keys() & three.episodes.keys()
    assert len(common) > 3
    for number in common:
        for key, value in one.episodes[number].items():
            np.testing.assert_array_equal(three.episodes[number][key], value)
    assert len({episode_seed(seed, number) for seed in range(20) for number in range(50)}) == 1000


@pytest.mark.parametrize("count", [1, 2, 3, 10])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_evaluation_takes_the_first_episodes_started(
    pools: dict[int, EnvPool], num_envs: int, count: int
) -> None:
    states: list[Any] = []

    def policy(timesteps: Arrays, state: Any) -> tuple[np.ndarray, int]:
        states.append(state)
        assert {len(value) for value in timesteps.values()} == {num_envs}
        assert "action" not in timesteps
        return reflex(timesteps, state)

    keeper = Keeper()
    collector = Collector(pools[num_envs], keeper, seed=5)
    summaries = collector.collect_episodes(policy, count)
    assert [summary.number for summary in summaries] == list(range(count))
    assert [summary.length for summary in summaries] == [length_of(k) for k in range(count)]
    assert sorted(keeper.episodes) == list(range(count))
    assert collector.agent_steps == sum(length_of(k) for k in range(count))
    assert states == [None, *range(1, len(states))]
    again = collector.collect_episodes(policy, count)
    assert [summary.number for summary in again] == list(range(count, 2 * count))
    assert states.count(None) == 2


def test_evaluation_refuses_to_drop_episodes_under_way(pools: dict[int, EnvPool]) -> None:
    collector = Collector(pools[3], Keeper(), seed=5)
    collector.collect(reflex, 3)
    with pytest.raises(ValueError, match="under way"):
        collector.collect_episodes(reflex, 1)


def test_episode_that_could_not_be_kept_is_handed_over_again(pools: dict[int, EnvPool]) -> None:
    keeper, refusals = Keeper(), [OSError("disk full"), OSError("disk full")]

    def on_episode(episode: Arrays, number: int) -> None:
        if refusals:
            raise refusals.pop()
        keeper(episode, number)

    collector = Collector(pools[3], on_episode, seed=5)
    for _ in range(2):
        with pytest.raises(OSError, match="disk full"):
            collector.collect(reflex, 60)
    assert collector.episodes == 0
    summaries = collector.collect(reflex, 60)
    assert len(summaries) == collector.episodes == len(keeper.episodes)
    running = collector.next_episode - len(keeper.episodes)
    assert 0 <= running <= 3  # every other episode that began has been handed over


def test_random_actions_follow_from_the_seed_and_fill_their_space() -> None:
    timesteps = {"is_first": np.zeros(500, bool)}
    box = Space((2,), np.dtype(np.float32), np.array([-1.0, 0.0]), 1.0)
    policy, same = random_policy(box, 0), random_policy(box, 0)
    for _ in range(3):
        actions, state = policy(timesteps, "anything")
        assert (actions.shape, actions.dtype, state) == ((500, 2), np.float32, None)
        np.testing.assert_allclose([actions.min(0), actions.max(0)], [[-1, 0], [1, 1]], atol=0.02)
        np.testing.assert_array_equal(actions, same(timesteps, None)[0])


@pytest.mark.parametrize("array", [
    np.zeros((0, 3), np.float32), np.float32([[np.nan, -0.0, 1e-45]]), np.arange(3, dtype=">i8"),
    np.array(True),
], ids=str)  # fmt: skip
def test_arrays_survive_json_exactly(array: np.ndarray):
    again = _unpack(json.loads(json.dumps(_pack(array))))
    assert (again.dtype, again.shape) == (array.dtype, array.shape)
    assert again.tobytes() == array.tobytes()


@pytest.mark.parametrize("wrong", [
    {"dtype": "O"}, {"dtype": "no"}, {"shape": [1 << 60]}, {"shape": [-1, 7]}, {"data": "?"},
    {"data": 3},
])  # fmt: skip
def test_forged_arrays_are_refused(wrong: dict[str, Any]):
    packed = {**_pack(np.zeros(3, np.float32)), **wrong}
    with pytest.raises((TypeError, ValueError)):
        _unpack(packed)
