"""Packing and stacking of observations."""

from __future__ import annotations

import numpy as np
import pytest

from baselines.observations import Observations
from dreamer.envs.spec import Space
from dreamer.errors import UserError

IMAGE = Space((64, 64, 3), np.dtype(np.uint8), 0, 255)


def test_vectors_and_images_are_joined_in_the_order_of_their_names():
    space = {"b": Space((2,), np.dtype(np.float32)), "a": Space((1,), np.dtype(np.float32))}
    obs = Observations({**space, "y": IMAGE, "x": IMAGE}, 2, gray=False)
    assert obs.shapes == {"image": (64, 64, 12), "vector": (3,)}
    x, y = (np.full((5, 64, 64, 3), value, np.uint8) for value in (10, 20))
    packed = obs.pack({"a": np.ones((5, 1)), "b": np.zeros((5, 2)), "x": x, "y": y})
    assert packed["vector"].tolist() == [[1, 0, 0]] * 5
    assert packed["image"][0, 0, 0].tolist() == [10] * 3 + [20] * 3


def test_gray_is_the_luminance():
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[0, 0, :3] = np.diag([255, 255, 255])
    gray = Observations({"image": IMAGE}, 1, gray=True).pack({"image": image})["image"]
    assert gray.shape == (1, 64, 64, 1) and gray[0, 0, :4, 0].tolist() == [76, 150, 29, 0]


def test_a_stack_begins_with_the_first_frame_and_forgets_the_episode_before():
    obs = Observations({"image": IMAGE}, 3, gray=True)

    def timesteps(shade: int, first: list[bool]) -> dict[str, np.ndarray]:
        images = np.stack([np.full((64, 64, 3), shade + row, np.uint8) for row in range(2)])
        return {"image": images, "is_first": np.array(first)}

    stack = obs.push(None, timesteps(10, [True, True]))
    assert stack["image"][:, 0, 0].tolist() == [[10] * 3, [11] * 3]
    stack = obs.push(stack, timesteps(20, [False, False]))
    stack = obs.push(stack, timesteps(30, [False, True]))
    assert stack["image"][:, 0, 0].tolist() == [[10, 20, 30], [31, 31, 31]]


def test_what_does_not_fit_is_named():
    with pytest.raises(UserError, match=r"but image has shape \[8, 8, 3\]"):
        Observations({"image": Space((8, 8, 3), np.dtype(np.uint8), 0, 255)}, 1, gray=False)
