"""Provenance of a run: versions, commit, machine and time."""

from __future__ import annotations

import importlib.metadata
import platform
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import dreamer
from dreamer.system.machine import machine

_PACKAGES = (
    "tensorflow", "tensorflow-probability", "keras", "tf_keras", "tensorboard", "numpy",
    "dm_control", "mujoco", "gymnasium", "ale-py",
)  # fmt: skip


def provenance() -> dict[str, Any]:
    """Returns the time, host, machine, commit and package versions of this process."""
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S%z"),
        "host": socket.gethostname(),
        "machine": machine(),
        "commit": commit(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Returns the versions of Python, this package and its main dependencies, without imports."""
    found = {"python": platform.python_version(), "dreamer": dreamer.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str:
    """Returns the checkout's git commit, or "" outside a checkout.

    It ends in ``-modified`` if files differ from the commit.
    """
    source = Path(dreamer.__file__).resolve().parent
    head = _git(source, "rev-parse", "HEAD")
    # An installed copy may lie inside another project's checkout, whose commit is not ours.
    if not head or not _git(source, "ls-files", "__init__.py"):
        return ""
    return head + ("-modified" if _git(source, "status", "--porcelain", "-uno") else "")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
