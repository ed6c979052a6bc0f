"""Compares open-loop predictions with the truth: errors by steps ahead, and images of both.

Sequences are [B, T, ...] from `Agent.predict`: images uint8, everything else float32. The model has
observed the first `context` timesteps; timestep context - 1 + k is k steps ahead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dreamer.logs.video import signed_difference

IMAGE_UNIT = "levels of 255"
VECTOR_UNIT = "own units"
_HEIGHT = 64  # pixels of an image of bars, as observations have
_BAR, _GROUND = 220, 20  # grey levels


@dataclass(frozen=True)
class StepErrors:
    """Mean absolute errors of an observation or the reward; element k - 1 is k steps ahead."""

    unit: str
    mean: list[float]  # over the sequences and the observation's elements
    std: list[float]  # over the sequences, of each sequence's error
    still: list[float]  # of the prediction that nothing changes after the last timestep observed


def step_errors(truth: np.ndarray, model: np.ndarray, context: int) -> StepErrors:
    """Returns the errors of predictions [B, T, ...] of any rank, T - context of them."""
    error = _absolute(truth[:, context:], model[:, context:])
    still = _absolute(truth[:, context:], truth[:, context - 1 : context])
    return StepErrors(
        unit=IMAGE_UNIT if truth.dtype == np.uint8 else VECTOR_UNIT,
        mean=error.mean(0).tolist(),
        std=error.std(0).tolist(),
        still=still.mean(0).tolist(),
    )


def _absolute(truth: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Returns the mean absolute differences float64 [B, K] of [B, K, ...] and a like array."""
    difference = np.abs(truth.astype(np.float64) - model.astype(np.float64))
    return difference.reshape(*truth.shape[:2], -1).mean(-1)


def rows(truth: np.ndarray, model: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns truth, model and error of one observation as images, for `open_loop_video`.

    Args:
        truth, model: Images uint8 [B, T, H, W, C]; or float32 [B, T, n] or [B, T], which become
            bars, one for each element.

    Returns:
        Three arrays uint8 [B, T, H, W, C].
    """
    if truth.dtype == np.uint8:
        return truth, model, signed_difference(truth, model)
    values = [v.reshape(*v.shape[:2], -1).astype(np.float64) for v in (truth, model)]
    everything = np.concatenate([v.reshape(-1, v.shape[-1]) for v in values])
    low, high = everything.min(0), everything.max(0)
    span = np.where(high > low, high - low, 1.0)
    truth_part, model_part = ((v - low) / span for v in values)
    error = (model_part - truth_part + 1.0) / 2.0  # without an error, half the image's height
    return _bars(truth_part, 0.0), _bars(model_part, 0.0), _bars(error, 0.5)


def _bars(parts: np.ndarray, origin: float) -> np.ndarray:
    """Draws values [B, T, n] in [0, 1] as n bars from `origin`: uint8 [B, T, H, W, 1]."""
    place = (np.arange(_HEIGHT)[::-1] + 0.5) / _HEIGHT  # of each row of pixels, from the bottom
    low, high = np.minimum(parts, origin), np.maximum(parts, origin)
    inside = (place[:, None] >= low[..., None, :]) & (place[:, None] <= high[..., None, :])
    picture = np.where(inside, _BAR, _GROUND).astype(np.uint8)[..., None]  # [B, T, H, n, 1]
    return picture.repeat(max(1, _HEIGHT // parts.shape[-1]), axis=-2)
