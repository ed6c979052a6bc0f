"""Videos of a real run, frame by frame; and which timesteps open-loop predictions start from."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from whole_runs import DebugRuns, metrics_of

from dreamer.logs.logger import Logger
from dreamer.training.collector import EpisodeSummary
from dreamer.training.interrupts import Interrupt, RetryWhileDiskFull, StopRequested
from dreamer.training.reports import (
    CONTEXT,
    IMAGINED,
    Evaluation,
    Reporter,
    held_out_batch,
    image_keys,
)


def frames_of(path: Path) -> tuple[np.ndarray, list[int]]:
    """A GIF's frames, int [T, H, W, 3], and how long each is shown, in milliseconds."""
    frames, durations = [], []
    with Image.open(path) as gif:
        for index in range(gif.n_frames):
            gif.seek(index)
            frames.append(np.asarray(gif.convert("RGB"), np.int64))
            durations.append(gif.info["duration"])
    return np.stack(frames), durations


def shrink(frames: np.ndarray, scale: int) -> np.ndarray:
    """Takes back an enlargement of each pixel to a square."""
    small = frames[:, ::scale, ::scale]
    assert (small.repeat(scale, axis=1).repeat(scale, axis=2) == frames).all()
    return small


def test_evaluation_is_shown_whole_and_sharp(debug_runs: DebugRuns):
    frames, durations = frames_of(debug_runs.path / "videos" / "eval_policy-400.gif")
    assert frames.shape == (41, 256, 256, 3)
    assert set(durations) == {40}  # 25 timesteps a second
    small = shrink(frames, 4)
    assert small.std() > 10
    assert all((small[t] != small[t + 1]).any() for t in range(40))  # something moves throughout


def test_open_loop_predictions_show_truth_model_and_error(debug_runs: DebugRuns):
    videos = debug_runs.path / "videos"
    frames, durations = frames_of(videos / "open_loop_image-400.gif")
    scale = frames.shape[1] // (3 * 68)
    assert frames.shape == (41, 3 * 68 * scale, 68 * scale, 3) and scale > 1
    assert set(durations) == {100}
    rows = shrink(frames, scale).reshape(41, 3, 68, 68, 3)
    # A green border while the model sees the truth, a dark one while it imagines.
    borders = rows[:, :, 0, 0].mean(axis=1)
    assert (borders[:CONTEXT, 1] > borders[:CONTEXT, 0] + 60).all()
    assert (borders[CONTEXT:] < 70).all()
    truth, model, error = np.moveaxis(rows[:, :, 2:-2, 2:-2], 1, 0)
    # The truth is the episode that the evaluation's video shows; GIFs have 256 colours.
    shown = shrink(frames_of(videos / "eval_policy-400.gif")[0], 4)
    assert np.abs(truth - shown).mean() < 6
    assert np.abs(error - (model - truth + 255) // 2).mean() < 6


def episode(length: int, value: int) -> dict[str, np.ndarray]:
    return {
        "image": np.full((length, 8, 8, 3), value, np.uint8),
        "reward": np.arange(length, dtype=np.float32),
    }


def test_held_out_batches_are_the_first_timesteps_of_what_is_long_enough():
    batch = held_out_batch([episode(80, 1), episode(60, 2)], CONTEXT + IMAGINED)
    assert batch["image"].shape == (2, 50, 8, 8, 3) and (batch["image"][1] == 2).all()
    assert (batch["reward"] == np.arange(50)).all()
    # Short episodes shorten the batch or are left out.
    batch = held_out_batch([episode(80, 1), episode(20, 2), episode(CONTEXT, 3)], 50)
    assert batch["image"].shape == (2, 20, 8, 8, 3)
    assert held_out_batch([episode(CONTEXT, 1)], 50) == held_out_batch([], 50) == {}


def test_image_keys_are_those_of_pictures():
    assert image_keys({**episode(9, 0), "bytes": np.zeros((9, 4), np.uint8)}) == ["image"]


class StoppedAfterAVideo(Logger):
    """Gets SIGTERM once the first video is written."""

    def video(self, *arguments: Any) -> Path:
        path = super().video(*arguments)
        if len(list(path.parent.iterdir())) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return path


def report(logger: Logger, interrupt: Interrupt, shown: dict[str, np.ndarray], step: int) -> Any:
    """Reports an evaluation of one episode, by an agent that cannot be asked for predictions."""
    evaluation = Evaluation([EpisodeSummary(0, 7.0, 59, 59, False, "")], [shown], [shown])
    evaluator: Any = SimpleNamespace(
        run=lambda policy, on_episode: evaluation, episodes=1, pool=SimpleNamespace(tasks=[""])
    )
    agent: Any = SimpleNamespace(policy_calls=0, predict=lambda batch, context: {})
    retry_while_disk_full = RetryWhileDiskFull(0, interrupt, logger.message)
    intervals = dict.fromkeys(("log", "evaluate", "video", "save"), 1)
    reporter = Reporter(agent, evaluator, logger, intervals, retry_while_disk_full, interrupt)
    policy: Any = None
    reporter.report(step, policy, {"updates": 0})
    return reporter


def test_the_time_that_the_evaluations_to_come_take():
    """At steps 52, 84, 148 and 200, the end: tests/training/test_trainer.py has this run."""
    nothing: Any = None
    evaluator: Any = SimpleNamespace(episodes=3, pool=SimpleNamespace(tasks=["", ""], num_envs=2))
    reporter = Reporter(nothing, evaluator, nothing, {"evaluate": 70}, nothing, nothing)
    assert reporter.seconds_left(52, 200, 4.0) == 4 * 3 * 4.0 / 2
    reporter.done["evaluate"] = 84
    assert reporter.seconds_left(116, 200, 4.0) == 2 * 3 * 4.0 / 2
    assert reporter.seconds_left(116, 210, 4.0) == 2 * 3 * 4.0 / 2  # the last one is at the end


def test_videos_of_long_evaluations_last_a_minute(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 255, (1600, 8, 8, 3)).astype(np.uint8)
    with Logger(tmp_path, tensorboard=False, terminal="plain", total_steps=10) as logger:
        report(logger, Interrupt(), {"image": images, "reward": np.zeros(1600)}, 7)
    with Image.open(tmp_path / "videos" / "eval_policy-7.gif") as gif:
        assert gif.n_frames == 60 * 25


def test_a_stop_leaves_out_videos_and_keeps_the_evaluation(tmp_path: Path):
    pictures = {**episode(60, 1), "other": np.zeros((60, 8, 8, 3), np.uint8)}
    with (
        Interrupt() as interrupt,
        StoppedAfterAVideo(tmp_path, tensorboard=False, terminal="plain", total_steps=10) as logger,
    ):
        reporter = report(logger, interrupt, pictures, 4)
        with pytest.raises(StopRequested):
            interrupt.check()
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["eval_policy-4.gif"]
    assert [line["eval/return"] for line in metrics_of(tmp_path)] == [7.0]
    assert reporter.done == {"log": 4, "evaluate": 4, "video": None, "save": None}


@pytest.mark.parametrize(
    ("interval", "steps", "last", "told"),
    [
        (100, range(0, 501, 30), None, [0, 120, 210, 300, 420]),  # once a multiple and at first
        (100, [50, 99, 730, 799, 800], None, [50, 730, 800]),  # once for what was passed over
        (100, [250, 299, 300, 301], 250, [300]),  # after a resume
        (0, [0, 1, 100], None, []),
    ],
)
def test_due_at_multiples(interval: int, steps, last: int | None, told: list[int]) -> None:
    nothing: Any = None
    reporter = Reporter(nothing, nothing, nothing, {"log": interval}, nothing, nothing)
    reporter.done["log"] = last
    found = []
    for step in steps:
        if reporter.is_due("log", step):
            found.append(step)
            reporter.done["log"] = step
    assert found == told
