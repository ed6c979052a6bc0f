"""Rewards, values and returns along episodes against literal sums; the figures of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dreamer.analysis import prediction_figures as figures
from dreamer.analysis.foresight import Calibration, calibrations, foresee

GAMMA, CONTEXT, HORIZON = 0.9, 2, 5


class Seer:
    """An agent that foresees numbers that follow from the timesteps alone."""

    def __init__(self, valued: bool = True) -> None:
        self.valued = valued

    def foresee(self, batch: Any, starts: list[int], horizon: int) -> dict[str, np.ndarray]:
        assert max(starts) + horizon < batch["reward"].shape[1]
        b, t = batch["reward"].shape
        row = np.arange(b)[:, None] + np.arange(t) / 10.0
        at = np.array(starts)[:, None] + np.arange(horizon + 1)
        found = {"reward": row, "pcont": np.full_like(row, 0.8)}
        found |= {"value": 2 * row} if self.valued else {}
        imagined = {f"imagined/{k}": v[:, at] for k, v in found.items()}
        return {**found, "truth": np.tanh(batch["reward"]), **imagined}


def episode(length: int, terminal: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(length)
    cont = np.ones(length, np.float32)
    cont[-1] = not terminal
    return {"reward": rng.normal(size=length).astype(np.float32), "cont": cont,
            "image": np.zeros((length, 2, 2, 3), np.uint8)}  # fmt: skip


def test_returns_are_those_of_literal_sums():
    episodes = [episode(12, True), episode(20, False)]
    ended, cut = foresee(Seer(), episodes, CONTEXT, HORIZON, GAMMA)
    for one, source in ((ended, episodes[0]), (cut, episodes[1])):
        length = len(source["reward"])
        rewards = np.tanh(source["reward"])
        np.testing.assert_array_equal(one.truth, rewards)
        assert one.starts.tolist() == list(range(CONTEXT - 1, length - 1))
        assert one.returns is not None and one.value is not None and one.judged is not None
        for t in range(length):
            left = length - 1 - t
            after = rewards[-1] if one is ended else one.value[-1]
            expected = sum(GAMMA**k * rewards[t + k] for k in range(left)) + GAMMA**left * after
            assert one.returns[t] == pytest.approx(expected)
            assert one.judged[t] == (one is ended or GAMMA**left <= 0.5)
        for start, imagined, found in zip(
            one.starts, one.imagined, one.imagined_return, strict=True
        ):
            inside = min(HORIZON + 1, length - start)
            assert np.isfinite(imagined[:inside]).all() and np.isnan(imagined[inside:]).all()
            if inside <= HORIZON:
                assert np.isnan(found)
                continue
            rewards_there = one.reward[start : start + HORIZON]
            expected = sum(0.8**k * r for k, r in enumerate(rewards_there))
            assert found == pytest.approx(expected + 0.8**HORIZON * one.value[start + HORIZON])


def test_calibration_takes_what_can_be_judged():
    one, other = foresee(Seer(), [episode(12, True), episode(20, False)], CONTEXT, HORIZON, GAMMA)
    sums, values, imagined = calibrations([one, other], HORIZON)
    assert sums.name == "reward of the next 5 steps" and len(sums.came) == (12 - 6) + (20 - 6)
    assert sums.came[0] == pytest.approx(one.truth[2:7].sum())
    assert sums.predicted[0] == pytest.approx(one.reward[2:7].sum())
    assert len(values.came) == 12 + int(other.judged.sum()) < 32
    assert len(imagined.came) < len(sums.came)
    exact = Calibration("x", np.arange(4.0), 2 * np.arange(4.0) + 1).statistics()
    assert exact["slope"] == pytest.approx(2) and exact["correlation"] == pytest.approx(1)
    assert exact["bias"] == pytest.approx(-2.5) and exact["count"] == 4
    none = Calibration("x", np.ones(0), np.ones(0)).statistics()
    assert none == {"count": 0, **dict.fromkeys(("bias", "rmse", "correlation", "slope"))}


def test_without_a_value_network_there_are_rewards_alone():
    found = foresee(Seer(valued=False), [episode(12, True)], CONTEXT, HORIZON, GAMMA)
    assert found[0].returns is None and len(calibrations(found, HORIZON)) == 1
    assert len(figures.draw_foresights(found, HORIZON).axes) == 1


def test_figures_have_a_panel_for_each_thing():
    found = foresee(Seer(), [episode(12, True)] * 5, CONTEXT, HORIZON, GAMMA)
    assert len(figures.draw_foresights(found, HORIZON).axes) == 2 * figures.MOST
    short = foresee(Seer(), [episode(4, True)], CONTEXT, HORIZON, GAMMA)
    for some in (found, short):
        panels = figures.draw_calibration(calibrations(some, HORIZON)).axes
        assert [axes.get_title() for axes in panels] == [
            "Reward of the next 5 steps", "Return: value network", "Return: 5 steps imagined",
        ]  # fmt: skip
    vectors = {"joints": np.zeros((2, 20, 3)), "speed": np.ones((2, 20))}
    panels = figures.draw_vectors(vectors, vectors, 5).axes
    assert len(panels) == 2 * 4 and panels[6].get_ylabel() == "speed"
    many = {"joints": np.zeros((1, 20, 30))}
    assert len(figures.draw_vectors(many, many, 5).axes) == 8


@pytest.mark.parametrize("channels", [3, 4])  # colours; stacked grey frames
def test_images_in_a_grid_as_in_the_paper(channels: int):
    truth = np.random.default_rng(0).integers(0, 256, (2, 50, 8, 8, channels), np.uint8)
    panels = figures.draw_images(truth, truth, 5).axes
    titles = [axes.get_title() for axes in panels[:11]]
    assert titles == ["t = 1", "t = 5", *(f"+{k}" for k in range(5, 50, 5))]
    assert len(panels) == 2 * 3 * 11
    assert [panels[11 * row].get_ylabel() for row in range(3)] == ["truth", "model", "error"]
    shown = panels[2].get_images()[0].get_array()
    np.testing.assert_array_equal(shown[..., 0], truth[0, 9, ..., -3 if channels == 3 else -1])
    assert np.all(panels[2 * 11].get_images()[0].get_array() == 127)
