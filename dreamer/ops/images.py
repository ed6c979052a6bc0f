"""Images as the networks see them, and as they are shown."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def as_shown(tensor: tf.Tensor) -> np.ndarray:
    """Images [B, T, H, W, C] in [-0.5, 0.5] as uint8, clipped; any other rank as it is."""
    if tensor.shape.rank == 5:
        return np.round(np.clip(tensor.numpy() + 0.5, 0.0, 1.0) * 255.0).astype(np.uint8)
    return tensor.numpy()
