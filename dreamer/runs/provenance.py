"""Provenance of a run: versions, commit, machine and time."""

from __future__ import annotations

import contextlib
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
    """Returns time, host, machine, commit, and the versions of Python, dreamer and packages."""
    versions = {"python": platform.python_version(), "dreamer": dreamer.__version__}
    for package in _PACKAGES:
        versions[package] = "not installed"
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S%z"),
        "host": socket.gethostname(),
        "machine": machine(),
        "commit": _commit(),
        "versions": versions,
    }


def _commit() -> str:
    """Returns the checkout's commit, with ``-modified`` if files differ; "" outside a checkout."""
    head = _git("rev-parse", "HEAD")
    # An installed copy may lie inside another project's checkout, whose commit is not ours.
    if not head or not _git("ls-files", "__init__.py"):
        return ""
    return head + ("-modified" if _git("status", "--porcelain", "-uno") else "")


def _git(*arguments: str) -> str:
    folder = str(Path(dreamer.__file__).resolve().parent)
    # A status that may refresh the index leaves a lock in the checkout if the run is killed.
    command = ["git", "--no-optional-locks", "-C", folder, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
