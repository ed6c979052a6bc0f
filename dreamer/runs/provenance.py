"""What a run was made of: versions, commit, machine and time."""

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
    *("tensorflow", "tensorflow-probability", "keras", "tf_keras", "tensorboard", "numpy"),
    *("dm_control", "mujoco", "gymnasium", "ale-py"),
)


def versions() -> dict[str, str]:
    """What runs: Python, this package and those it stands on; nothing is imported for it."""
    found = {"python": platform.python_version(), "dreamer": dreamer.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str:
    """The checkout's git commit, with ``-modified`` if files differ from it; "" outside one."""
    source = Path(dreamer.__file__).resolve().parent
    head = _git(source, "rev-parse", "HEAD")
    # An installed copy may lie inside some other project's checkout: that commit is not ours.
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


def origin() -> dict[str, Any]:
    """When, where and of what a run is made."""
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S%z"),
        "host": socket.gethostname(),
        "machine": machine(),
        "commit": commit(),
        "versions": versions(),
    }
