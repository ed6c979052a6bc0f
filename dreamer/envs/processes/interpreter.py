"""The Python that runs the workers, their import path and their environment variables.

It is this process's own Python, or another one for environments that need older packages than
TensorFlow does: old gym needs NumPy 1.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import dreamer
from dreamer.envs import rendering
from dreamer.envs.spec import EnvSettings
from dreamer.errors import UserError
from dreamer.system.processes import try_python
from dreamer.tasks import Suite

#: Checks what every worker needs. Pillow is needed only to resize images.
PROBE = "import numpy, sys; assert sys.version_info >= (3, 11), sys.version"
EXPECTED = "expected a virtual environment's bin/python, of Python 3.11 or newer, with NumPy"


def find_python(python: str) -> str:
    """Returns the path of an interpreter; "" means this process's own.

    Raises:
        UserError: The program does not exist or cannot run a worker.
    """
    if not python:
        return sys.executable
    found = shutil.which(Path(python).expanduser())
    if found is None:
        raise UserError(f"envs.python is {python}, which is no program; {EXPECTED}")
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if problem := try_python(PROBE, variables, found):
        what = f"which cannot run environments ({problem})"
        raise UserError(f"envs.python is {python}, {what}; {EXPECTED}")
    return os.path.abspath(found)


def import_path(folder: str) -> str:
    """Returns the PYTHONPATH of workers that another Python runs.

    Its packages must not mix with ours. It gets the user's folders, and the empty `folder` with a
    link to this package, because the folder that contains this package may also contain packages
    for another NumPy.
    """
    Path(folder, "dreamer").symlink_to(Path(dreamer.__file__).resolve().parent)
    paths = [path or os.getcwd() for path in sys.path]
    users = [path for path in paths if not _is_installed(Path(path).resolve())]
    return os.pathsep.join([folder, *users])


def _is_installed(path: Path) -> bool:
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    prefixes = (Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix))
    return any(path.is_relative_to(prefix) for prefix in prefixes)


#: Variables that the user may have set otherwise. Workers run in parallel, so that each has one
#: thread for arithmetic. Many environments draw with pygame, which uses SDL.
DEFAULTS = {
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    "SDL_VIDEODRIVER": "dummy",
}  # fmt: skip


def worker_variables(suite: Suite, settings: EnvSettings, num_envs: int) -> dict[str, str]:
    """Returns the environment variables that workers have besides this process's own.

    Raises:
        UserError: The suite needs MuJoCo's OpenGL, which does not render here.
    """
    # Workers share the processors. With 2 idle processors, a single worker of walker_walk renders
    # 131 frames per second with 2 threads of its software OpenGL (Mesa), and 110 with none.
    share = len(os.sched_getaffinity(0)) // num_envs
    defaults = {**DEFAULTS, "LP_NUM_THREADS": str(min(share, 4) if share > 1 else 0)}
    variables = {key: value for key, value in defaults.items() if key not in os.environ}
    variables["DREAMER_ENV_WORKER"] = "1"  # a file that workers import cannot start further ones
    if suite.opengl == "unused" or not settings.image:
        variables["MUJOCO_GL"] = os.environ.get("MUJOCO_GL", "off")
        return variables
    try:
        variables.update(rendering.backend_variables(settings.egl_device))
    except UserError:
        if suite.opengl == "required":
            raise
    return variables
