"""The Python that runs an environment's process: this one, or that of another environment of
packages, for what needs older ones than TensorFlow does (old gym needs NumPy 1)."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import dreamer
from dreamer.errors import UserError


def find_python(python: str) -> str:
    """Returns the interpreter's path, which for "" is this process's own.

    Raises:
        UserError: no such program.
    """
    if not python:
        return sys.executable
    found = shutil.which(Path(python).expanduser())
    if found is None:
        raise UserError(
            f"envs.python is {python}, which is no program; expected a Python 3.11 or newer with "
            "NumPy, such as some_folder/bin/python of a virtual environment"
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
