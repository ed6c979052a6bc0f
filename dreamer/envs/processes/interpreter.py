"""The Python that runs an environment's process: this one, or that of another environment of
packages, for what needs older ones than TensorFlow does (old gym needs NumPy 1)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dreamer
from dreamer.envs import rendering
from dreamer.errors import UserError

EXPECTED = (
    "expected a Python 3.11 or newer with NumPy, such as some_folder/bin/python of a virtual "
    "environment"
)
ANSWER = "can run environments"
#: What a worker cannot do without. Pillow is for images of another size.
PROBE = f"import numpy, sys; assert sys.version_info >= (3, 11), sys.version; print({ANSWER!r})"
PROBE_TIMEOUT = 120.0  # seconds; a first import from a cold disk is slow


def find_python(python: str) -> str:
    """Returns the interpreter's path, which for "" is this process's own.

    Raises:
        UserError: no such program, or one that cannot run a worker.
    """
    if not python:
        return sys.executable
    found = shutil.which(Path(python).expanduser())
    if found is None:
        raise UserError(f"envs.python is {python}, which is no program; {EXPECTED}")
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try:
        done = subprocess.run(
            [found, "-P", "-c", PROBE], env=variables, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", timeout=PROBE_TIMEOUT, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        printed = (getattr(error, "stderr", None) or "").strip().splitlines() or [str(error)]
        raise UserError(
            f"envs.python is {python}, which cannot run environments ({printed[-1]}); {EXPECTED}"
        ) from error
    # The status alone says nothing: /bin/true ends well, too.
    if done.stdout.splitlines()[-1:] != [ANSWER]:
        raise UserError(
            f"envs.python is {python}, which did not do what a Python is told with -c; {EXPECTED}"
        )
    return os.path.abspath(found)


def import_paths(folder: str | None = None) -> list[str]:
    """Returns where a worker looks for modules before its Python's own packages.

    Everywhere that this process does, in the same order. For another Python, whose packages must
    not mix with ours: the user's folders, and `folder`, in which a link to this package is put,
    since around it there may lie packages for another NumPy.

    Args:
        folder: an empty one; None for workers with this process's Python.
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


#: One thread a worker for arithmetic, where the user has not said otherwise: workers are the
#: parallelism.
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
#: Set in workers, so that a file they import cannot start workers in turn.
WORKER_VARIABLE = "DREAMER_ENV_WORKER"


def worker_variables(suite: str, settings: dict[str, Any], num_envs: int) -> dict[str, str]:
    """Returns the environment variables that workers start with."""
    drawing = {"LP_NUM_THREADS": str(_drawing_threads(num_envs))}
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


def _drawing_threads(num_envs: int) -> int:
    """Returns a worker's threads for Mesa's software OpenGL, 0 meaning none besides the caller's.

    Workers share the processors. With 2 idle ones a single worker of walker_walk makes 131 frames
    a second with 2 threads, and 110 with none.
    """
    share = len(os.sched_getaffinity(0)) // num_envs
    return min(share, 4) if share > 1 else 0
