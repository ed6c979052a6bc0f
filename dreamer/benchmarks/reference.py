"""The loop that our environments are measured against, spelt out.

dm_control as it comes (its own shadow map and offscreen buffer), rendering every repeated frame by
`physics.render`, of which only the last one would be seen.
"""

from __future__ import annotations

import time

import numpy as np

IMAGE_SIZE = 64


class ReferenceLoop:
    """One task of dm_control's suite under random actions. Must not share a process with
    TensorFlow.

    Args:
        domain, task: dm_control's names.
        camera: Index of the camera.
        action_repeat: Frames an action is held.
    """

    def __init__(self, domain: str, task: str, camera: int, action_repeat: int) -> None:
        from dm_control import suite

        self._env = suite.load(domain, task)
        self._camera, self._repeat = camera, action_repeat
        self._rng = np.random.default_rng(0)
        self._restart()

    def step(self, count: int) -> float:
        """Takes that many agent steps, `action_repeat` frames each; returns the seconds."""
        spec = self._env.action_spec()
        start = time.perf_counter()
        for _ in range(count):
            action = self._rng.uniform(spec.minimum, spec.maximum)
            for _ in range(self._repeat):
                timestep = self._env.step(action)
                self._env.physics.render(IMAGE_SIZE, IMAGE_SIZE, camera_id=self._camera)
            if timestep.last():
                self._restart()
        return time.perf_counter() - start

    def _restart(self) -> None:
        self._env.reset()
        self._env.physics.render(IMAGE_SIZE, IMAGE_SIZE, camera_id=self._camera)
