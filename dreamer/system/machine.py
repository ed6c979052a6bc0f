"""What this machine is made of, as far as files tell: nothing is imported or started for it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Returns processor, cores that this process may use, memory in bytes, and GPUs by name."""
    names = _values(Path("/proc/cpuinfo"), "model name")
    memory = _values(Path("/proc/meminfo"), "MemTotal")
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": int(memory[0].split()[0]) * 1024 if memory else 0,
        "gpus": [name for path in gpus for name in _values(path, "Model")],
    }


def _values(path: Path, key: str) -> list[str]:
    """The values of ``key : value`` lines; none where there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    pairs = [line.partition(":") for line in lines]
    return [value.strip() for name, _, value in pairs if name.strip() == key]
