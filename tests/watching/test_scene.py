"""Views that no debug run has: many actions, odd pictures."""

import numpy as np

from dreamer.watching.scene import SIZE, Scene
from dreamer.watching.side import _half


def test_a_view_with_more_actions_than_there_is_room_for():
    names = [f"action {i}" for i in range(130)]
    facts = {"task": "t", "agent": "a", "step": 1, "decodes": "", "elements": [], "actions": names,
             "discrete": False, "model": False, "value": False, "kl": False}  # fmt: skip
    scene, told = Scene(), {"time": 0, "over": False, "reward": 0.0, "return": 0.0}
    state = {"kind": "state", "sides": [facts], "dreaming": None, "by_hand": None, "ahead": 45}
    scene.take((state, {}))
    scene.take(({"kind": "moment", "sides": [told]}, {"0/action": np.ones(130, np.float32)}))
    assert scene.draw().shape == (SIZE[1], SIZE[0], 3)


def test_half_a_picture():
    picture = np.arange(35, dtype=np.uint8).reshape(5, 7, 1)
    assert _half(picture)[..., 0].tolist() == [[4, 6, 8], [18, 20, 22]]
