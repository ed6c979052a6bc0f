"""Packs observations for model-free agents: one image, one vector, the newest frames stacked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dreamer.envs.spec import Space
from dreamer.errors import UserError

Arrays = dict[str, np.ndarray]
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


class Observations:
    """Packs an environment's observations under at most two keys, ``image`` and ``vector``.

    Images [64, 64, C] are joined along their channels, vectors [size] end to end, both in the order
    of their names. A single image shows no movement, so agents observe a stack of the newest
    frames. At the start of an episode its first frame is repeated.

    Args:
        obs_space: The environment's.
        frames: Number of frames in a stack.
        gray: Whether images with three channels become gray.

    Attributes:
        frames: Frames in a stack; 1 without images.
        timestep_shapes: Shapes of `pack`'s arrays, without leading axes.
        shapes: Shapes of a network's inputs: images with frames * C channels, vectors not stacked.

    Raises:
        UserError: An observation is neither an image of 64x64 nor a vector.
    """

    def __init__(self, obs_space: Mapping[str, Space], frames: int, gray: bool):
        for key, space in obs_space.items():
            fits = space.shape[:2] == (64, 64) if space.is_image else len(space.shape) == 1
            if not fits:
                raise UserError(
                    f"this agent takes images [64, 64, channels] and vectors [size], but {key} has "
                    f"shape {list(space.shape)}"
                )
        self._gray = gray
        self._images = sorted(k for k, s in obs_space.items() if s.is_image)
        self._vectors = sorted(k for k, s in obs_space.items() if not s.is_image)
        self.frames = frames if self._images else 1
        zeros = {key: np.zeros(space.shape, space.dtype) for key, space in obs_space.items()}
        self.timestep_shapes = {key: array.shape for key, array in self.pack(zeros).items()}
        self.shapes = {key: array.shape for key, array in self.push(None, zeros).items()}

    def pack(self, timesteps: Mapping[str, np.ndarray]) -> Arrays:
        """Packs observations [..., *shape] as image uint8 [..., 64, 64, C] and vector [..., V]."""
        packed: Arrays = {}
        if self._images:
            packed["image"] = np.concatenate([self._shade(timesteps[k]) for k in self._images], -1)
        if self._vectors:
            vectors = [np.asarray(timesteps[k], np.float32) for k in self._vectors]
            packed["vector"] = np.concatenate(vectors, -1)
        return packed

    def push(self, stack: Arrays | None, timesteps: Mapping[str, np.ndarray]) -> Arrays:
        """Returns the next stack of n environments, for acting.

        Args:
            stack: What the last call returned; None at first.
            timesteps: Observations [n, ...] and is_first [n]; a first timestep fills the stack.
        Returns:
            ``shapes``, each [n, ...], the newest frame last.
        """
        packed = self.pack(timesteps)
        if self.frames == 1:
            return packed
        new = packed["image"]
        full = np.concatenate([new] * self.frames, -1)
        if stack is not None:
            moved = np.concatenate([stack["image"][..., new.shape[-1] :], new], -1)
            first = np.asarray(timesteps["is_first"], bool)[:, None, None, None]
            full = np.where(first, full, moved)
        return {**packed, "image": full}

    def _shade(self, images: np.ndarray) -> np.ndarray:
        if not self._gray or images.shape[-1] != 3:
            return images
        return np.rint(images.astype(np.float32) @ _LUMA)[..., None].astype(np.uint8)
