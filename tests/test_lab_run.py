"""A whole training on DeepMind Lab's stand-in, started as a user starts one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from whole_runs import metrics_of, state_of

from dreamer.data.episodes import EpisodeFile


@pytest.mark.slow
def test_counters_losses_and_settings(lab_run: Path):
    lines = metrics_of(lab_run)
    assert [line["step"] for line in lines] == [160, 240, 320, 400]
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert all(line["agent_steps"] * 4 == line["step"] for line in lines)
    assert "model/image_loss" in lines[-1] and "model/VEL.TRANS_loss" in lines[-1]
    assert "model/discount_loss" not in lines[-1] and "eval/return" in lines[-1]
    config = (lab_run / "config.yaml").read_text(encoding="utf-8")
    assert "transform: tanh" in config and "action_repeat: 4" in config
    state = state_of(lab_run)
    assert (state["agent_steps"], state["update"], state["next_episode"]) == (100, 8, 5)


@pytest.mark.slow
def test_episodes_hold_one_hot_actions_and_raw_rewards(lab_run: Path):
    paths = sorted((lab_run / "episodes").iterdir())
    assert [path.name.split("-")[1:] for path in paths] == [
        [f"s0e{number:08d}", "21.npz"] for number in range(5)
    ]
    episodes = [EpisodeFile(path).read() for path in paths]
    for episode in episodes:
        assert episode["image"].shape == (21, 64, 64, 3) and episode["image"].std() > 10
        assert episode["VEL.TRANS"].shape == episode["VEL.ROT"].shape == (21, 3)
        actions = episode["action"]
        assert actions.shape == (21, 9) and not actions[0].any()
        # Straight-through samples are one-hot to a rounding.
        np.testing.assert_allclose(np.sort(actions[1:], axis=1), np.eye(9)[[8] * 20], atol=1e-6)
        assert (episode["reward"] == np.round(episode["reward"])).all()  # scores, no tanh of them
        # Eighty frames are fewer than the level has: a cut, no end.
        assert episode["is_last"][-1] and not episode["is_terminal"].any()
    pictures = {episode["image"].tobytes() for episode in episodes}
    assert len(pictures) == len(episodes)  # each is seeded by itself
