"""Open-loop predictions beside the truth: their error by step ahead, and clips of them.

Sequences are [B, T, ...] as `Agent.predict` gives them: images uint8, everything else float32.
 The model saw the first `context` timesteps; timestep context - 1 + k is k steps ahead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dreamer.logs.video import signed_difference

IMAGE_UNIT = "levels of 255"
VECTOR_UNIT = "own units"
_HEIGHT = 64  # pixels of a picture of bars, as an image has
_BAR, _GROUND = 220, 20  # grey levels


@dataclass(frozen=True)
class StepErrors:
    """Mean absolute errors of one observation, or of the reward; element k - 1 is k steps ahead.

    Attributes:
        unit: What they count.
        mean: Over the sequences and the observation's elements.
        std: Standard deviation over the sequences of each one's error.
        still: Error of the prediction that nothing changes after the last timestep seen, for
            comparison.
    """

    unit: str
    mean: list[float]
    std: list[float]
    still: list[float]


def step_errors(truth: np.ndarray, model: np.ndarray, context: int) -> StepErrors:
    """The errors of predictions [B, T, ...] of any rank, T - context of them."""
    error = _absolute(truth[:, context:], model[:, context:])
    still = _absolute(truth[:, context:], truth[:, context - 1 : context])
    return StepErrors(
        unit=IMAGE_UNIT if truth.dtype == np.uint8 else VECTOR_UNIT,
        mean=error.mean(0).tolist(),
        std=error.std(0).tolist(),
        still=still.mean(0).tolist(),
    )


def _absolute(truth: np.ndarray, model: np.ndarray) -> np.ndarray:
    """[B, K, ...] and what broadcasts to it -> float64 [B, K], mean absolute differences."""
    difference = np.abs(truth.astype(np.float64) - model.astype(np.float64))
    return difference.reshape(*truth.shape[:2], -1).mean(-1)


def rows(truth: np.ndarray, model: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, model and error of one observation as pictures, for `open_loop_video`.

    Args:
        truth, model: Both uint8 [B, T, H, W, C], images; or float32 [B, T, n] or [B, T], which
            become bars, one for each element.
    Returns:
        Three times uint8 [B, T, H, W, C].
    """
    if truth.dtype == np.uint8:
        return truth, model, signed_difference(truth, model)
    values = [v.reshape(*v.shape[:2], -1).astype(np.float64) for v in (truth, model)]
    everything = np.concatenate([v.reshape(-1, v.shape[-1]) for v in values])
    low, high = everything.min(0), everything.max(0)
    span = np.where(high > low, high - low, 1.0)
    truth_part, model_part = ((v - low) / span for v in values)
    error = (model_part - truth_part + 1.0) / 2.0  # no error is half as high as the picture
    return _bars(truth_part, 0.0), _bars(model_part, 0.0), _bars(error, 0.5)


def _bars(parts: np.ndarray, origin: float) -> np.ndarray:
    """[B, T, n] in [0, 1] -> uint8 [B, T, H, W, 1]: n bars from `origin` to each value."""
    place = (np.arange(_HEIGHT)[::-1] + 0.5) / _HEIGHT  # of a pixel's row, from the bottom
    low, high = np.minimum(parts, origin), np.maximum(parts, origin)
    inside = (place[:, None] >= low[..., None, :]) & (place[:, None] <= high[..., None, :])
    picture = np.where(inside, _BAR, _GROUND).astype(np.uint8)[..., None]  # [B, T, H, n, 1]
    return picture.repeat(max(1, _HEIGHT // parts.shape[-1]), axis=-2)
