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
EXPECTED = (
    "expected a Python 3.11 or newer with NumPy, such as some_folder/bin/python of a virtual "
    "environment"
)


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
        raise UserError(
            f"envs.python is {python}, which cannot run environments ({problem}); {EXPECTED}"
        )
    return os.path.abspath(found)


def import_paths(folder: str | None = None) -> list[str]:
    """Returns the folders in which a worker looks for modules before its Python's own packages.

    With this process's Python, they are this process's own. Another Python's packages must not mix
    with ours: it gets the user's folders, and `folder` with a link to this package, because the
    folder that contains this package may also contain packages for another NumPy.

    Args:
        folder: An empty folder; None: workers run this process's Python.
    """
    paths = [path or os.getcwd() for path in sys.path]
    if folder is None:
        return paths
    Path(folder, "dreamer").symlink_to(Path(dreamer.__file__).resolve().parent)
    installed = [Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)]
    users = [path for path in paths if not _is_installed(Path(path).resolve(), installed)]
    return [folder, *users]


def _is_installed(path: Path, prefixes: list[Path]) -> bool:
    parts = {"site-packages", "dist-packages"} & set(path.parts)
    return bool(parts) or any(path.is_relative_to(prefix) for prefix in prefixes)


#: One thread per worker for arithmetic, unless the user chose otherwise: workers run in parallel.
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
#: Set in workers, so that a file that they import cannot start further workers.
WORKER_VARIABLE = "DREAMER_ENV_WORKER"


def worker_variables(suite: Suite, settings: EnvSettings, num_envs: int) -> dict[str, str]:
    """Returns the environment variables that workers start with.

    Raises:
        UserError: The suite needs MuJoCo's OpenGL, which does not render here.
    """
    threads = {**THREADS, "LP_NUM_THREADS": str(_rendering_threads(num_envs))}
    variables = {**threads, **os.environ, WORKER_VARIABLE: "1"}
    variables.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame, which many environments draw with
    if suite.opengl == "unused" or not settings.image:
        variables.setdefault("MUJOCO_GL", "off")
        return variables
    try:
        variables.update(rendering.backend_variables(settings.egl_device))
    except UserError:
        if suite.opengl == "required":
            raise
    return variables


def _rendering_threads(num_envs: int) -> int:
    """Returns the threads of a worker's software OpenGL (Mesa); 0: none besides the caller's.

    Workers share the processors. With 2 idle processors, a single worker of walker_walk renders 131
    frames per second with 2 threads, and 110 with none.
    """
    share = len(os.sched_getaffinity(0)) // num_envs
    return min(share, 4) if share > 1 else 0
