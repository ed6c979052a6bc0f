"""From the environment to the batch, the parts of a timestep stay together and in order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import counting_env
import numpy as np
import pytest

from dreamer.data.replay import Replay
from dreamer.envs.processes.pool import EnvPool
from dreamer.training.collector import Collector, episode_seed, random_policy

TASK = f"{Path(counting_env.__file__)}:make"
SEED = 7


@pytest.fixture(scope="module")
def pool() -> Iterator[EnvPool]:
    with EnvPool(TASK, 3, 60.0, state=True) as pool:
        yield pool


def make_replay(directory: Path, pool: EnvPool) -> Replay:
    return Replay(
        directory, cache_bytes=1e6, seed=0, obs_space=pool.obs_space, act_space=pool.act_space
    )


def check_timesteps(rows: dict[str, np.ndarray]) -> None:
    """Checks arrays [n, ...] of consecutive timesteps, of one or more episodes."""
    before: tuple[int, int] | None = None
    for t in range(len(rows["reward"])):
        seed, step, action = counting_env.decode(rows["image"][t])
        length = counting_env.episode_length(seed)
        np.testing.assert_array_equal(rows["vector"][t], [seed % 1000, step, *action])
        np.testing.assert_array_equal(rows["action"][t], action)
        assert rows["is_first"][t] == (step == 0)
        assert rows["is_last"][t] == (step == length)
        assert rows["is_terminal"][t] == (step == length and seed % 2 == 0)
        assert rows["cont"][t] == 1.0 - rows["is_terminal"][t]
        if step == 0:
            assert rows["reward"][t] == 0.0
            assert not action.any()
            assert before is None or before[1] == counting_env.episode_length(before[0])
        else:
            assert rows["reward"][t] == counting_env.reward_of(seed, step, action)
            assert action.any()
            assert before is None or before == (seed, step - 1)
        before = seed, step


def test_alignment_from_workers_to_batches(pool: EnvPool, tmp_path: Path) -> None:
    replay = make_replay(tmp_path, pool)
    numbers: list[int] = []

    def keep(episode: dict[str, np.ndarray], number: int) -> None:
        assert counting_env.decode(episode["image"][0])[0] == episode_seed(SEED, number)
        check_timesteps(episode)
        replay.add(episode, f"{SEED}-{number:06d}")
        numbers.append(number)

    collector = Collector(pool, keep, SEED)
    policy = random_policy(pool.act_space, 0)
    for steps in (1, 50, 7, 142, 100):  # calls that end within episodes
        collector.collect(policy, steps)
    assert sorted(numbers) == sorted(set(numbers))
    assert len(replay) == len(numbers) == collector.episodes > 20
    assert (
        sum(len(range(0, steps, 3)) * 3 for steps in (1, 50, 7, 142, 100)) == collector.agent_steps
    )
    stored = sum(file.length - 1 for file in replay.files)
    assert 0 <= collector.agent_steps - stored <= 3 * counting_env.LONGEST

    reopened = make_replay(tmp_path, pool)
    for source in (replay, reopened):
        with closing(source.batches(0, 20, batch_size=8, length=9, prefetch=2)) as batches:
            for batch in batches:
                assert batch["image"].shape == (8, 9, 8, 8, 3)
                for row in range(8):
                    check_timesteps({key: array[row] for key, array in batch.items()})


def test_policy_sees_what_is_stored(pool: EnvPool) -> None:
    """The action that a policy answers to a timestep is stored in that worker's next timestep."""
    asked: dict[tuple[int, int], np.ndarray] = {}
    inner = random_policy(pool.act_space, 1)

    def policy(timesteps: dict[str, np.ndarray], state: object) -> tuple[np.ndarray, object]:
        actions, state = inner(timesteps, state)
        for row, action in enumerate(actions):
            seed, step, _ = counting_env.decode(timesteps["image"][row])
            assert timesteps["is_first"][row] == (step == 0)
            assert not timesteps["is_last"][row]
            asked[seed, step] = action
        return actions, state

    episodes: list[dict[str, np.ndarray]] = []
    Collector(pool, lambda episode, number: episodes.append(episode), SEED).collect(policy, 150)
    for episode in episodes:
        seed = counting_env.decode(episode["image"][0])[0]
        for t in range(1, len(episode["action"])):
            np.testing.assert_array_equal(episode["action"][t], asked[seed, t - 1])
