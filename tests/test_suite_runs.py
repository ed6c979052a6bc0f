"""Whole trainings on an Atari game, stopped and resumed, and on DeepMind Lab's stand-in."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from whole_runs import metrics_of, state_of, train

from dreamer.data.episodes import EpisodeFile
from dreamer.envs.atari import Atari
from dreamer.envs.spec import EnvSettings
from dreamer.training.collector import episode_seed
from dreamer.training.reports import EVAL_SEED_OFFSET

# River Raid: points and lost lives come soon, whatever is done. 400 agent steps are the limit.
WORDS = (
    *("--task", "atari_riverraid", "--configs", "debug", "--envs.time_limit", "1600"),
    *("--train.prefill", "1200", "--train.every", "400", "--log.every", "400"),
    *("--eval.every", "400", "--eval.save_episodes", "true", "--checkpoint.every", "400"),
    *("--envs.state", "true", "--encoder.keys", "image", "--decoder.keys", "image|ram"),
    *("--precision", "float32", "--deterministic", "true"),
)  # fmt: skip


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def atari_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The run's directory, and what each of its two parts printed."""
    root = tmp_path_factory.mktemp("atari")
    options = {"stderr": subprocess.STDOUT}
    first, second = (
        train(*WORDS, "--logdir", root, "--steps", steps, **options) for steps in ("1200", "1600")
    )
    assert "A.L.E" not in first + second  # the emulator's banner
    return root / "atari_riverraid" / "dreamer_debug" / "0", first, second


def counted(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, which are finite and repeat each action four times."""
    lines = metrics_of(run)
    assert all(line["agent_steps"] * 4 == line["step"] for line in lines)
    assert all(np.isfinite(value) for line in lines for value in line.values())
    return lines


def read(folder: Path) -> list[dict[str, np.ndarray]]:
    return [EpisodeFile(path).read() for path in sorted(folder.iterdir())]


def test_it_trains_and_goes_on(atari_run: tuple[Path, str, str]):
    run, first, second = atari_run
    lines = counted(run)
    # The prefill goes on to an episode's end.
    (before, after) = (line["step"] for line in lines)
    assert 1200 <= before < 1600 <= after
    assert {"model/discount_loss", "model/ram_loss", "model/image_loss"} <= lines[-1].keys()
    assert state_of(run)["update"] == lines[-1]["updates"] > lines[0]["updates"]
    assert f"resumed at step {before}" in second and f"done: {after} steps" in second
    assert "encoder takes image; decoder predicts image, ram; actions 18 one-hot" in first
    assert "environment: time_limit 1600, actions noop fire up" in first
    config = (run / "config.yaml").read_text(encoding="utf-8")
    for line in ("transform: tanh", "action_repeat: 4", "unit: updates", "ale-py: "):
        assert line in config, line


def test_training_episodes_end_with_a_life_and_hold_points(atari_run: tuple[Path, str, str]):
    episodes = read(atari_run[0] / "episodes")
    assert any(episode["is_terminal"][-1] for episode in episodes)
    for episode in episodes:
        length = len(episode["reward"])
        assert episode["image"].shape == (length, 64, 64, 3) and episode["image"].dtype == np.uint8
        assert episode["ram"].shape == (length, 128)
        assert episode["action"].shape == (length, 18) and not episode["action"][0].any()
        np.testing.assert_allclose(episode["action"][1:].sum(1), 1, atol=1e-5)
        assert (episode["cont"] == 1 - episode["is_terminal"]).all()
        assert (episode["reward"] == np.round(episode["reward"])).all()
    assert max(episode["reward"].max() for episode in episodes) >= 30  # points, no tanh of them


def replay(episode: dict[str, np.ndarray], seed: int, *, training: bool) -> tuple[list, bool]:
    """The rewards of the episode's actions, and whether they end an episode."""
    env = Atari("riverraid", EnvSettings(action_repeat=4, time_limit=1600, training=training))
    rewards = [float(env.reset(seed)["reward"])]
    for action in episode["action"][1:]:
        timestep = env.step(action)
        rewards.append(float(timestep["reward"]))
        if timestep["is_last"]:
            break
    return rewards, bool(timestep["is_last"])


def test_a_life_is_an_episode_in_training_and_the_game_in_evaluation(atari_run):
    first, games = read(atari_run[0] / "episodes")[0], read(atari_run[0] / "eval_episodes")
    assert first["is_terminal"][-1]
    rewards = first["reward"].tolist()
    seed = episode_seed(0, 0)
    assert replay(first, seed, training=True) == (rewards, True)
    assert replay(first, seed, training=False) == (rewards, False)
    for number, game in enumerate(games):
        seed = episode_seed(EVAL_SEED_OFFSET, number)
        assert replay(game, seed, training=False) == (game["reward"].tolist(), True)
    evaluated = [line for line in metrics_of(atari_run[0]) if "eval/return" in line]
    assert [line["eval/return"] for line in evaluated] == [game["reward"].sum() for game in games]


def test_lab_counters_losses_and_settings(lab_run: Path):
    lines = counted(lab_run)
    assert [line["step"] for line in lines] == [160, 240, 320, 400]
    assert "model/image_loss" in lines[-1] and "model/VEL.TRANS_loss" in lines[-1]
    assert "model/discount_loss" not in lines[-1] and "eval/return" in lines[-1]
    config = (lab_run / "config.yaml").read_text(encoding="utf-8")
    assert "transform: tanh" in config and "action_repeat: 4" in config
    state = state_of(lab_run)
    assert (state["agent_steps"], state["update"], state["next_episode"]) == (100, 8, 5)


def test_lab_episodes_hold_one_hot_actions_and_raw_rewards(lab_run: Path):
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
