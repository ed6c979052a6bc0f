"""Held-out episodes; errors by step ahead against a literal loop, and the pictures of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dreamer.analysis.open_loop import (
    IMAGE_UNIT,
    TRIES,
    VECTOR_UNIT,
    collect_fresh,
    read_saved,
    rows,
    step_errors,
)
from dreamer.data.episodes import save_episode
from dreamer.envs.processes.pool import EnvPool
from dreamer.errors import UserError
from dreamer.logs.video import open_loop_video, signed_difference
from dreamer.training.collector import episode_seed, random_policy
from dreamer.training.reports import EVAL_SEED_OFFSET

B, T, CONTEXT = 3, 7, 2


def sequences(shape: tuple[int, ...], dtype: type) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    if dtype is np.uint8:
        return tuple(rng.integers(0, 256, (B, T, *shape), dtype) for _ in range(2))
    return tuple(rng.normal(0, 3, (B, T, *shape)).astype(dtype) for _ in range(2))


@pytest.mark.parametrize(
    "shape, dtype, unit",
    [((4, 5, 3), np.uint8, IMAGE_UNIT), ((6,), np.float32, VECTOR_UNIT), ((), np.float32,
                                                                          VECTOR_UNIT)],
)  # fmt: skip
def test_errors_are_those_of_a_literal_loop(shape: tuple, dtype: type, unit: str):
    truth, model = sequences(shape, dtype)
    errors = step_errors(truth, model, CONTEXT)
    assert errors.unit == unit and len(errors.mean) == T - CONTEXT
    for ahead in range(1, T - CONTEXT + 1):
        of_model, of_still = [], []
        for b in range(B):
            came = truth[b, CONTEXT - 1 + ahead]
            pairs = [(m, s, t) for m, s, t in zip(
                np.ravel(model[b, CONTEXT - 1 + ahead]), np.ravel(truth[b, CONTEXT - 1]),
                np.ravel(came), strict=True)]  # fmt: skip
            of_model.append(sum(abs(float(m) - float(t)) for m, _, t in pairs) / len(pairs))
            of_still.append(sum(abs(float(s) - float(t)) for _, s, t in pairs) / len(pairs))
        assert errors.mean[ahead - 1] == pytest.approx(np.mean(of_model))
        assert errors.std[ahead - 1] == pytest.approx(np.std(of_model))
        assert errors.still[ahead - 1] == pytest.approx(np.mean(of_still))


def test_a_perfect_and_a_still_model():
    truth, _ = sequences((4,), np.float32)
    assert step_errors(truth, truth, CONTEXT).mean == [0.0] * (T - CONTEXT)
    still = truth.copy()
    still[:, CONTEXT:] = truth[:, CONTEXT - 1 : CONTEXT]
    errors = step_errors(truth, still, CONTEXT)
    assert errors.mean == errors.still


def test_differences_are_grey_where_images_agree():
    truth = np.array([0, 255, 100, 0, 255], np.uint8)
    model = np.array([0, 255, 100, 255, 0], np.uint8)
    assert signed_difference(truth, model).tolist() == [127, 127, 127, 255, 0]


def test_rows_of_images_are_the_images():
    truth, model = sequences((4, 4, 1), np.uint8)
    shown = rows(truth, model)
    assert shown[0] is truth and shown[1] is model
    np.testing.assert_array_equal(shown[2], signed_difference(truth, model))


def test_vectors_become_bars():
    truth = np.zeros((1, 3, 2), np.float32)
    truth[0, :, 0], truth[0, :, 1] = [0, 1, 2], [5, 5, 5]
    model = truth.copy()
    model[0, 2, 0] = 1  # too low by half the range
    shown = rows(truth, model)
    assert all(row.shape == (1, 3, 64, 64, 1) and row.dtype == np.uint8 for row in shown)
    lit = [(row[..., 0] == 220).sum(axis=2) for row in shown]  # [1, T, W]: heights of the bars
    assert lit[0][0, :, 0].tolist() == [0, 32, 64] and lit[1][0, :, 0].tolist() == [0, 32, 32]
    assert lit[2][0, :, 0].tolist() == [0, 0, 16]  # from the middle down
    assert not shown[2][0, 2, :32, :32].tolist().count(220) and shown[2][0, 2, 40, 0, 0] == 220
    assert not lit[0][0, :, 32:].any()  # an element that never changes
    assert open_loop_video(*shown, 1).shape == (3, 3 * 68, 68, 3)
    scalars = rows(truth[..., 0], model[..., 0])
    assert scalars[0].shape == (1, 3, 64, 64, 1)


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
