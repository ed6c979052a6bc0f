"""Latent states of replayed timesteps: what sequences start from, in memory of a bounded size."""

from pathlib import Path

import numpy as np
import pytest
from test_replay import ACT_SPACE, OBS_SPACE, fill, write_older_files

from dreamer.data.latent_memory import LatentMemory
from dreamer.data.replay import Batch, Replay

SIZE = 3


def make_replay(directory: Path, limit: float = 1e6, sampling: str = "timesteps") -> Replay:
    return Replay(
        directory, cache_bytes=0, seed=0, obs_space=OBS_SPACE, act_space=ACT_SPACE,
        sampling=sampling, latents=LatentMemory(limit, SIZE),
    )  # fmt: skip


def states_of(batch: Batch, update: int) -> np.ndarray:
    """States [B, T, 3] that tell episode, timestep and update."""
    marks = batch["position"][..., :2]
    return np.concatenate([marks, np.full((*marks.shape[:2], 1), update, np.float32)], -1)


def updates(replay: Replay, count: int, prefetch: int = 2, first: int = 0) -> list[Batch]:
    """Batches of 2 x 6 timesteps, as an agent sees them that finds the states of `states_of`."""
    seen: list[Batch] = []

    def found() -> np.ndarray:
        return states_of(seen[-1], first + len(seen) - 1)

    for batch in replay.batches(first, count, 2, 6, prefetch, found):
        seen.append(batch)
    return seen


@pytest.mark.parametrize("sampling", ["episodes", "timesteps"])
@pytest.mark.parametrize("older", [False, True])
def test_a_sequence_starts_from_the_newest_state_before_it(tmp_path, sampling, older) -> None:
    """Against a table of all states, filled timestep by timestep."""
    if older:
        write_older_files(tmp_path, 3)
    replay = make_replay(tmp_path, sampling=sampling)
    if not older:
        fill(replay, [12, 4, 9])
    table: dict[tuple[int, int], np.ndarray] = {}
    known = 0
    for number, batch in enumerate(updates(replay, 40)):
        states = states_of(batch, number)
        assert batch["latent"].dtype == np.float32
        for row in range(2):
            episode, timestep = states[row, 0, :2].astype(int)
            expected = table.get((episode, timestep - 1))
            known += expected is not None
            expected = np.zeros(SIZE) if expected is None else expected
            np.testing.assert_array_equal(batch["latent"][row], expected)
        for row in range(2):
            for state in states[row]:
                table[tuple(state[:2].astype(int))] = state
    assert known > 20


@pytest.mark.parametrize("prefetch", [1, 8])
def test_the_states_do_not_depend_on_prefetching(tmp_path: Path, prefetch: int) -> None:
    fill(make_replay(tmp_path), [12, 9])
    expected, found = (updates(make_replay(tmp_path), 20, n) for n in (3, prefetch))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one["latent"], other["latent"])


def test_the_episodes_stored_longest_ago_make_room(tmp_path: Path) -> None:
    replay = make_replay(tmp_path, limit=2 * 12 * SIZE * 2)  # two episodes of three, in float16
    fill(replay, [12, 12, 12])
    memory = replay._latents
    assert memory is not None
    one, two, three = replay.files
    for number, file in enumerate((one, two, one, three)):
        memory.store([[(file, 0, 6)]], np.full((1, 6, SIZE), number + 1.0))
        assert memory.nbytes <= 2 * 12 * SIZE * 2
    starts = memory.before([[(file, 6, 12)] for file in (one, two, three)])
    np.testing.assert_array_equal(starts[:, 0], [3, 0, 4])
    memory.forget(one.path)
    memory.forget(two.path)
    assert memory.nbytes == 12 * SIZE * 2
    tiny = LatentMemory(10, SIZE)
    tiny.store([[(one, 0, 6)]], np.ones((1, 6, SIZE)))
    assert tiny.nbytes == 0 and not tiny.before([[(one, 3, 6)]]).any()


@pytest.mark.parametrize("replaced", [True, False])
def test_an_episode_that_is_replaced_or_taken_out_loses_its_states(
    tmp_path: Path, replaced: bool
) -> None:
    replay = make_replay(tmp_path)
    fill(replay, [12])
    updates(replay, 5)
    assert replay._latents is not None and replay._latents.nbytes
    if not replaced:  # as replay.capacity does
        replay.take_out(replay.files[0])
        assert replay._latents.nbytes == 0
    fill(replay, [14])
    assert replay._latents.nbytes == 0
    assert not updates(replay, 1, first=5)[0]["latent"].any()


def test_states_that_are_not_finite_stay_unknown(tmp_path: Path) -> None:
    """Of an update that overflowed, or too large for float16."""
    replay, memory = make_replay(tmp_path), LatentMemory(1e6, SIZE)
    fill(replay, [12])
    states = np.ones((1, 6, SIZE))
    states[0, 1, 2], states[0, 2, 1] = np.nan, 1e6
    memory.store([[(replay.files[0], 0, 6)]], states)
    found = memory.before([[(replay.files[0], t, 12)] for t in range(1, 8)])
    np.testing.assert_array_equal(found[:, 0], [1, 0, 0, 1, 1, 1, 0])
    assert np.isfinite(found).all()


def test_without_a_memory_batches_have_no_states(tmp_path: Path) -> None:
    replay = Replay(
        tmp_path, cache_bytes=0, seed=0, obs_space=OBS_SPACE, act_space=ACT_SPACE
    )  # fmt: skip
    fill(replay, [12])
    assert all("latent" not in batch for batch in replay.batches(0, 2, 2, 6, 1))
