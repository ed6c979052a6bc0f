"""The environment variables that the processes of environments start with."""

from __future__ import annotations

import os
from typing import Any

from dreamer.envs import rendering
from dreamer.errors import UserError

#: One thread a worker for arithmetic, where the user has not said otherwise: workers are the
#: parallelism.
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
#: Set in workers, so that a file they import cannot start workers in turn.
WORKER_VARIABLE = "DREAMER_ENV_WORKER"


def worker_variables(suite: str, settings: dict[str, Any], amount: int) -> dict[str, str]:
    """Returns the environment variables that workers start with."""
    drawing = {"LP_NUM_THREADS": str(_drawing_threads(amount))}
    variables = {**THREADS, **drawing, **os.environ, WORKER_VARIABLE: "1"}
    variables.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame, which many environments draw with
    # Those two draw by themselves.
    if suite in ("atari", "dmlab") or not settings.get("image", True):
        variables.setdefault("MUJOCO_GL", "off")
        return variables
    try:
        variables.update(rendering.backend_variables(settings.get("egl_device", -1)))
    except UserError:
        if suite == "dmc":
            raise  # other environments may well draw without OpenGL
    return variables


def _drawing_threads(amount: int) -> int:
    """Returns a worker's threads for Mesa's software OpenGL, 0 meaning none besides the caller's.

    Workers share the processors. With 2 idle ones a single worker of walker_walk makes 131 frames
    a second with 2 threads, and 110 with none.
    """
    share = len(os.sched_getaffinity(0)) // amount
    return min(share, 4) if share > 1 else 0
