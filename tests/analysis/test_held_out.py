"""Beginnings of episodes: run now, and read from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dreamer.analysis.open_loop import TRIES, collect_fresh, read_saved
from dreamer.data.episodes import save_episode
from dreamer.envs.processes.pool import EnvPool
from dreamer.errors import UserError
from dreamer.training.collector import episode_seed, random_policy
from dreamer.training.reports import EVAL_SEED_OFFSET

COUNTING = f"{Path(__file__).parents[1] / 'envs' / 'probe_envs.py'}:Counting"  # 5 to 9 steps


@pytest.fixture(scope="module")
def pool():
    with EnvPool(COUNTING, 2, state=True, action_repeat=1) as pool:
        yield pool


def fresh(pool: EnvPool, count: int, length: int):
    return collect_fresh(pool, random_policy(pool.act_space, 0), 3, count, length)


def lengths(count: int) -> list[int]:
    seeds = [episode_seed(3 + EVAL_SEED_OFFSET, number) for number in range(count)]
    return [int(np.random.default_rng(seed).integers(5, 10)) + 1 for seed in seeds]


def test_timesteps_line_up_and_short_episodes_are_left_out(pool: EnvPool):
    episodes = fresh(pool, 5, 8)
    expected = [length for length in lengths(20) if length >= 8][:5]
    assert [int(e["length"][0, 0]) + 1 for e in episodes] == expected
    assert min(lengths(10)) < 8  # so some were left out
    for episode in episodes:
        assert episode["image"][:, 0, 0, 0].tolist() == list(range(8))
        assert episode["reward"].tolist() == list(range(8)) and not episode["action"][0].any()
        np.testing.assert_allclose(episode["echo"], episode["action"], rtol=1e-6)
        assert episode["is_first"].tolist() == [True] + [False] * 7
        assert episode["action"][1:].std() > 0
    again = fresh(pool, 5, 8)
    np.testing.assert_array_equal(episodes[4]["action"], again[4]["action"])


def test_too_long_for_every_episode(pool: EnvPool):
    with pytest.raises(UserError, match=rf"none of {3 * TRIES} episodes had 11 timesteps"):
        fresh(pool, 3, 11)


def test_saved_episodes(pool: EnvPool, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(UserError, match="holds no episodes"):
        read_saved(tmp_path / "eval_episodes", pool, 2, 6)
    for number, episode in enumerate(fresh(pool, 3, 6)):
        save_episode(tmp_path, episode, f"eval{number}", f"2026010{number + 1}T000000")
    newest = read_saved(tmp_path, pool, 2, 4)
    assert [len(e["reward"]) for e in newest] == [4, 4]
    everything = read_saved(tmp_path, pool, 9, 6)
    assert len(everything) == 3
    np.testing.assert_array_equal(newest[0]["action"], everything[0]["action"][:4])
    assert set(newest[0]) == {*pool.obs_space, "action", "reward", "cont", "is_first", "is_last",
                              "is_terminal"}  # fmt: skip
    with pytest.raises(UserError, match="has 7 timesteps, the longest 6"):
        read_saved(tmp_path, pool, 2, 7)
    path = sorted(tmp_path.iterdir())[-1]
    path.write_bytes(path.read_bytes()[:-100])
    assert len(read_saved(tmp_path, pool, 9, 6)) == 2
    assert f"warning: {path}" in capsys.readouterr().err
    other = {k: v for k, v in everything[0].items() if k != "echo"}
    save_episode(tmp_path, other, "other", "20270101T000000")
    with pytest.raises(UserError, match="another environment: its echo differs"):
        read_saved(tmp_path, pool, 2, 6)
