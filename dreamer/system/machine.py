"""The machine's processor, memory and GPUs, read from files; nothing is imported or started."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Returns the processor, the cores this process may use, the bytes of memory, and the GPUs."""
    names = _values(Path("/proc/cpuinfo"), "model name")
    memory = _values(Path("/proc/meminfo"), "MemTotal")
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": int(memory[0].split()[0]) * 1024 if memory else 0,
        "gpus": [name for path in gpus for name in _values(path, "Model")],
    }


def processor_flags() -> str:
    """Returns the instructions that the processor has, as the kernel names them."""
    return next(iter(_values(Path("/proc/cpuinfo"), "flags")), "")


def _values(path: Path, key: str) -> list[str]:
    """Returns the values of all ``key : value`` lines; none if the file does not exist."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    pairs = [line.partition(":") for line in lines]
    return [value.strip() for name, _, value in pairs if name.strip() == key]
