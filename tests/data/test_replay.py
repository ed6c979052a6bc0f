"""The replay: its sampling, its memory, and its handling of unusable files."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from episode_samples import assert_same, file_arrays, make_episode
from scipy import stats

from dreamer.data.episodes import save_episode
from dreamer.data.replay import DamagedEpisodeWarning, Replay
from dreamer.envs.spec import Space
from dreamer.errors import UserError

Arrays = dict[str, np.ndarray]
OBS_SPACE = {
    "image": Space((8, 8, 3), np.dtype(np.uint8)),
    "position": Space((4,), np.dtype(np.float32)),
}
ACT_SPACE = Space((2,), np.dtype(np.float32), -1.0, 1.0)


def make_replay(
    directory: Path, seed: int = 0, cache_bytes: float = 1e6, sampling: str = "episodes"
) -> Replay:
    return Replay(
        directory, cache_bytes=cache_bytes, seed=seed, obs_space=OBS_SPACE, act_space=ACT_SPACE,
        sampling=sampling,
    )  # fmt: skip


def marked_episode(length: int, number: int) -> Arrays:
    """An episode whose position holds its number and each timestep's index."""
    episode = make_episode(length, number)
    episode["position"][:, 0] = number
    episode["position"][:, 1] = np.arange(length)
    return episode


def fill(replay: Replay, lengths: list[int], first: int = 0) -> None:
    for number, length in enumerate(lengths, first):
        replay.add(marked_episode(length, number), f"0-{number:06d}")


def test_batch_has_the_promised_keys_shapes_and_dtypes(tmp_path: Path) -> None:
    replay = make_replay(tmp_path / "new")
    fill(replay, [30, 8])
    batch = replay.sample(0, 5, 10)
    assert {key: (value.shape, str(value.dtype)) for key, value in batch.items()} == {
        "image": ((5, 10, 8, 8, 3), "uint8"),
        "position": ((5, 10, 4), "float32"),
        "action": ((5, 10, 2), "float32"),
        **dict.fromkeys(("reward", "cont"), ((5, 10), "float32")),
        **dict.fromkeys(("is_first", "is_last", "is_terminal"), ((5, 10), "bool")),
    }
    assert [file.length for file in replay.files] == [30, 8] and replay.damaged == 0


def test_episodes_are_drawn_uniformly_then_their_starts(tmp_path: Path) -> None:
    """Episodes of any length are equally likely, and so are the starts within each."""
    replay = make_replay(tmp_path)
    lengths = [10, 12, 20, 40]
    fill(replay, lengths)
    rows = np.concatenate([replay.sample(i, 100, 10)["position"][:, 0, :2] for i in range(60)])
    episodes = rows[:, 0].astype(int)
    assert stats.chisquare(np.bincount(episodes, minlength=4)).pvalue > 0.01
    for number, length in enumerate(lengths):
        starts = rows[episodes == number, 1].astype(int)
        counts = np.bincount(starts, minlength=length - 9)
        assert len(counts) == length - 9
        assert length == 10 or stats.chisquare(counts).pvalue > 0.01


def test_timesteps_are_drawn_alike_whatever_their_episode(tmp_path: Path) -> None:
    replay = make_replay(tmp_path, sampling="timesteps")
    lengths = [10, 3, 20, 40]
    fill(replay, lengths[:3])
    replay.sample(0, 5, 8)
    fill(replay, lengths[3:], first=3)  # counts from now on
    counts: Counter[tuple[int, int]] = Counter()
    for i in range(100):
        batch = replay.sample(i, 100, 8)
        places = batch["position"][..., :2].astype(int)
        np.testing.assert_array_equal(batch["is_first"], places[..., 1] == 0)
        begins = np.argwhere(batch["is_first"][:, 1:]) + [0, 1]
        for row, t in begins:  # continues with the next episode
            assert places[row, t, 0] == (places[row, t - 1, 0] + 1) % 4
        counts.update(map(tuple, places.reshape(-1, 2).tolist()))
    assert len(counts) == sum(lengths)
    drawn = np.array(list(counts.values()))
    # Timesteps of one sequence come together, so the counts vary more than independent ones.
    assert abs(drawn / drawn.mean() - 1).max() < 0.15


def test_sequences_continue_with_another_episode_after_a_short_one(tmp_path: Path) -> None:
    replay = make_replay(tmp_path)
    fill(replay, [3, 5, 4])
    used: Counter[tuple[int, int]] = Counter()
    followers: Counter[int] = Counter()
    for index in range(100):
        batch = replay.sample(index, 4, 13)
        for row in range(4):
            numbers, steps = batch["position"][row, :, :2].T.astype(int)
            used.update(zip(numbers.tolist(), steps.tolist(), strict=True))
            np.testing.assert_array_equal(batch["is_first"][row], steps == 0)
            joints = np.flatnonzero(steps == 0)
            assert joints[0] == 0
            for joint, after in zip(joints, [*joints[1:], 13], strict=True):
                length = [3, 5, 4][numbers[joint]]
                assert after - joint == length or after == 13  # complete, unless the sequence ends
                assert (numbers[joint:after] == numbers[joint]).all()
                assert (steps[joint:after] == np.arange(after - joint)).all()
                assert after == 13 or batch["is_last"][row, after - 1]
            followers.update(numbers[joints[1:]].tolist())
    assert used.keys() == {(n, t) for n, length in enumerate([3, 5, 4]) for t in range(length)}
    assert stats.chisquare([followers[n] for n in range(3)]).pvalue > 0.01


def test_a_long_episode_may_follow_a_short_one_but_never_the_reverse(tmp_path: Path) -> None:
    replay = make_replay(tmp_path)
    fill(replay, [4, 50])
    batch = replay.sample(0, 50, 10)
    for numbers, steps in batch["position"][:, :, :2].transpose(0, 2, 1).astype(int):
        if numbers[0] == 1:
            assert (numbers == 1).all()
        elif 1 in numbers:
            assert steps[numbers == 1][0] == 0


def test_sample_is_a_function_of_seed_index_and_members(tmp_path: Path) -> None:
    forth, back = make_replay(tmp_path / "a"), make_replay(tmp_path / "b")
    lengths = [20, 6, 33, 14]
    fill(forth, lengths)
    for number in (2, 0, 3, 1):
        back.add(marked_episode(lengths[number], number), f"0-{number:06d}")
    expected = forth.sample(3, 6, 10)
    assert_same(back.sample(3, 6, 10), expected)
    assert_same(forth.sample(3, 6, 10), expected)
    assert_same(make_replay(tmp_path / "b").sample(3, 6, 10), expected)
    other_seed = make_replay(tmp_path / "a", seed=1)
    for other in (forth.sample(4, 6, 10), other_seed.sample(3, 6, 10)):
        assert not np.array_equal(other["position"], expected["position"])
    got = list(forth.batches(2, 3, 6, 10, prefetch=1))
    assert len(got) == 3
    for index, batch in enumerate(got, 2):
        assert_same(batch, back.sample(index, 6, 10))


def test_adding_the_same_uid_replaces(tmp_path: Path) -> None:
    replay = make_replay(tmp_path)
    fill(replay, [20, 10, 15])
    save_episode(tmp_path, marked_episode(10, 1), "0-000001", "20200101T000000")
    next(path for path in tmp_path.glob("*-0-000001-*") if "2020" not in path.name).unlink()
    replay = make_replay(tmp_path)
    same_length = replay.add(marked_episode(10, 7), "0-000001")
    assert same_length.name == "20200101T000000-0-000001-10.npz"
    assert [file.length for file in replay.files] == [20, 10, 15]
    other_length = replay.add(marked_episode(12, 8), "0-000001")
    assert not same_length.exists()
    assert other_length.exists()
    assert [file.length for file in replay.files] == [20, 12, 15]
    drawn = {int(n) for i in range(20) for n in replay.sample(i, 4, 5)["position"][:, 0, 0]}
    assert drawn == {0, 8, 2}
    assert_same(make_replay(tmp_path).sample(0, 4, 5), replay.sample(0, 4, 5))


def test_empty_replay_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no episode"):
        make_replay(tmp_path).sample(0, 1, 5)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the folder"):
        make_replay(tmp_path / "file")


def test_file_that_vanishes_is_counted_and_training_goes_on(tmp_path: Path) -> None:
    fill(make_replay(tmp_path), [20, 20, 20])
    replay = make_replay(tmp_path)
    next(tmp_path.glob("*-0-000001-*")).unlink()
    with pytest.warns(DamagedEpisodeWarning, match="0-000001.*No such file"):
        numbers = replay.sample(0, 20, 10)["position"][:, 0, 0]
    assert set(numbers) == {0, 2}
    assert replay.damaged == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((9, 10, 10, 3), np.uint8)}, r"image is uint8 \(10, 10, 3\)"),
        ({"image": np.zeros((9, 8, 8, 3), np.float32)}, "image is float32"),
        ({"action": np.zeros((9, 3), np.float32)}, r"action is float32 \(3,\)"),
        ({"position": None}, "lacks the environment's position"),
    ],
)
def test_episodes_of_another_environment_are_refused_and_stay(
    tmp_path: Path, change: dict[str, np.ndarray | None], message: str
) -> None:
    episode = {key: v for key, v in {**make_episode(9), **change}.items() if v is not None}
    paths = [save_episode(tmp_path, episode, f"0-{number:06d}") for number in range(2)]
    with pytest.raises(UserError, match=f"{message}.*2 such episodes.*--replay.directory"):
        make_replay(tmp_path)
    assert sorted(tmp_path.iterdir()) == paths
    fitting = save_episode(tmp_path, make_episode(9), "0-000002")
    with pytest.warns(UserWarning, match=f"2 episodes left out.*{message}.*stay"):
        replay = make_replay(tmp_path)
    assert (replay.members, replay.damaged) == ([fitting.name], 0)
    with pytest.raises(ValueError, match=message):
        replay.add(episode, "0-000003")
    assert sorted(tmp_path.iterdir()) == sorted([*paths, fitting])


@pytest.mark.parametrize(
    ("owner", "moved"), [("0123abcd.", {"0123abcd.s0e1"}), ("", {"s0e3", "any"})]
)
def test_only_own_files_are_ever_moved(tmp_path: Path, owner: str, moved: set[str]) -> None:
    """Also if they are damaged, or another run's folder is only read."""
    for place in ("0123abcd.s0e1", "ffffffff.s0e2", "s0e3", "any", "other/s0e4"):
        path = tmp_path / place
        path = save_episode(path.parent, make_episode(9), path.name)
        path.write_bytes(path.read_bytes()[:100])
    save_episode(tmp_path, make_episode(9), f"{owner}s0e9")
    before = set(tmp_path.rglob("*.npz"))
    with pytest.warns(DamagedEpisodeWarning, match="because this run did not write it"):
        replay = Replay(
            tmp_path, cache_bytes=0, seed=0, obs_space=OBS_SPACE, act_space=ACT_SPACE, owner=owner,
            others=[tmp_path / "other"],
        )  # fmt: skip
    assert set(replay.set_aside()) == moved
    assert (replay.damaged, replay.left) == (5, 5 - len(moved))
    assert len(before & set(tmp_path.rglob("*.npz"))) == len(before) - len(moved)


def write_older_files(directory: Path, count: int) -> None:
    for number in range(count):
        arrays = file_arrays(marked_episode(20, number))
        for key in ("is_first", "is_last", "is_terminal"):
            del arrays[key]
        np.savez_compressed(directory / f"20200101T000000-{number:032x}-20.npz", **arrays)


def test_older_compressed_files_sample_alike_whatever_the_cache(tmp_path: Path) -> None:
    write_older_files(tmp_path, 5)
    mixed = make_replay(tmp_path)
    fill(mixed, [20, 20], first=5)
    expected = [mixed.sample(index, 4, 10) for index in range(10)]
    assert {int(n) for batch in expected for n in batch["position"][:, 0, 0]} == set(range(7))
    for cache_bytes in (0, 10_000, 1e9):
        replay = make_replay(tmp_path, cache_bytes=cache_bytes)
        for index in range(10):
            assert_same(replay.sample(index, 4, 10), expected[index])
            assert replay._cached <= cache_bytes


def prefetch_threads() -> int:
    gc.collect()
    return sum(thread.name.startswith("prefetch") for thread in threading.enumerate())


def test_prefetching_is_bounded_and_its_thread_ends(tmp_path: Path) -> None:
    replay, drawn = make_replay(tmp_path), threading.Semaphore(0)
    fill(replay, [20])
    draw = replay.draw

    def counted(*args: int) -> Any:
        drawn.release()
        return draw(*args)

    replay.draw = counted  # type: ignore[method-assign]
    for end in (lambda batches: batches.close(), lambda batches: None):
        batches = replay.batches(0, 100, 2, 5, prefetch=3)
        assert_same(next(batches), draw(0, 2, 5)[0])
        for _ in range(5):  # the first, three that wait, and one in the making
            assert drawn.acquire(timeout=60)
        assert not drawn.acquire(timeout=0.05)
        end(batches)
        del batches
        assert prefetch_threads() == 0


def test_an_error_of_the_thread_is_raised_where_its_batch_would_have_come(tmp_path: Path) -> None:
    replay = make_replay(tmp_path)
    fill(replay, [20])
    draw = replay.draw

    def failing(index: int, *shape: int) -> Any:
        if index == 2:
            raise RuntimeError("no third batch")
        return draw(index, *shape)

    replay.draw = failing  # type: ignore[method-assign]
    batches = replay.batches(0, 5, 2, 5, prefetch=1)
    for index in range(2):
        assert_same(next(batches), draw(index, 2, 5)[0])
    with pytest.raises(RuntimeError, match="no third batch"):
        next(batches)
    assert prefetch_threads() == 0 and list(batches) == []


def test_memory_is_flat_over_400_episodes(tmp_path: Path) -> None:
    """Of 14 MB of episodes, only the index stays in memory: 3 KB an episode."""
    replay = make_replay(tmp_path)
    episode = make_episode(150)
    fill(replay, [150] * 5)
    replay.sample(0, 8, 20)
    tracemalloc.start()
    try:
        for number in range(5, 400):
            replay.add(episode, f"0-{number:06d}")
            if number % 20 == 0:
                replay.sample(number, 8, 20)
        gc.collect()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(replay) == 400
    assert sum(path.stat().st_size for path in tmp_path.glob("*.npz")) > 12e6
    assert kept < 2.5e6
    assert peak < 4.5e6


def test_the_cache_keeps_the_episodes_used_last(tmp_path: Path) -> None:
    write_older_files(tmp_path, 3)
    size = sum(array.nbytes for array in make_replay(tmp_path).sample(0, 1, 20).values())
    replay = make_replay(tmp_path, cache_bytes=2.5 * size)
    a, b, c = replay.files
    first = [replay._unpacked(file) for file in (a, b)]
    assert replay._unpacked(a) is first[0]
    replay._unpacked(c)
    assert list(replay._cache) == [a.path, c.path] and replay._cached == 2 * size
    replay._forget(c)
    assert list(replay._cache) == [a.path] and replay._cached == size
