"""The device that TensorFlow runs on: set up quietly, and named plainly."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_NVIDIA = "0x10de"  # PCI vendor
_DISPLAY = "0x03"  # PCI class of display controllers, which cards for computing have too


def prepare_tensorflow(deterministic: bool = False) -> None:
    """Imports TensorFlow and sets its devices up; before anything else imports it.

    Args:
        deterministic: Whether equal inputs must give equal bits.
    """
    # Level 2 hides remarks and warnings. Without an NVIDIA card there is one "error" more that is
    # none: that CUDA finds no card. TensorFlow's real errors are exceptions. (The lines that its
    # libraries print while they are loaded heed no variable.)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if has_nvidia() else "3")
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        # Several trials, and EGL, share a card: take what is needed, not all there is.
        with contextlib.suppress(RuntimeError):  # it is in use already, as its user has set it
            tf.config.experimental.set_memory_growth(gpu, True)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def describe_device(system: Path = Path("/")) -> str:
    """What TensorFlow runs on; and if that is not the GPU that is there, why and what to do.

    Args:
        system: Root of the file system that tells what is there.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        return f"GPU: {details.get('device_name', gpus[0].name)}"
    if not has_nvidia(system):
        return "no GPU found, so this runs on the CPU"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES={hidden} hides the GPU, so this runs on the CPU"
    return (
        "warning: this machine has an NVIDIA GPU, but TensorFlow cannot use it, so this runs on "
        "the CPU, many times slower: install the GPU build (make setup, or pip install "
        "'tensorflow[and-cuda]==2.21.*'), see whether nvidia-smi shows the card, and set "
        "TF_CPP_MIN_LOG_LEVEL=0 to hear TensorFlow's reasons"
    )


def has_nvidia(system: Path = Path("/")) -> bool:
    """Whether this machine has an NVIDIA card, with or without a driver for it.

    Args:
        system: Root of the file system.
    """
    if any(system.glob("proc/driver/nvidia/gpus/*")) or any(system.glob("dev/nvidia[0-9]*")):
        return True
    return any(
        _content(device / "vendor") == _NVIDIA and _content(device / "class").startswith(_DISPLAY)
        for device in system.glob("sys/bus/pci/devices/*")
    )


def _content(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
