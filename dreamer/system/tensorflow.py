"""Imports TensorFlow without its messages, sets its devices up, and describes them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from dreamer.errors import UserError
from dreamer.system.xla_cache import keep_programs

_NVIDIA = "0x10de"  # PCI vendor
_DISPLAY = "0x03"  # PCI class of display controllers; cards without a display have it, too
_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# Messages that TensorFlow's libraries print while they are loaded, as an extended regular
# expression. Fatal errors (F0000) are not among them.
_MESSAGES = r"^(WARNING: All log messages before absl::|[IWE][0-9]{4} [0-9:. ]+ [a-z0-9_]+\.cc:)"
# Libraries of a software OpenGL, Mesa's, in /proc/self/maps.
_SOFTWARE_GL = re.compile(r"/(?:\w*swrast_dri|libgallium|libOSMesa)[^/\n]*\.so")


def prepare_tensorflow(deterministic: bool = False, jit: str = "off") -> None:
    """Imports TensorFlow and sets its devices up. Call it before anything else imports TensorFlow.

    TensorFlow's own messages are not shown, unless the user has set TF_CPP_MIN_LOG_LEVEL. If
    `deterministic`, equal inputs give equal bits. If XLA compiles updates (`jit` auto or on), what
    it compiles is kept on the disk. Convolutions are oneDNN's, as `use_onednn` says.

    Raises UserError if this process has rendered in software, because both crash in one process.
    """
    with contextlib.suppress(FileNotFoundError):
        if _SOFTWARE_GL.search(Path("/proc/self/maps").read_text(errors="replace")):
            raise UserError(
                "TensorFlow cannot share a process with a software OpenGL, which this process has "
                "loaded to render, because their libraries crash each other (a segmentation "
                "fault): render in another process, as the environments of dreamer.make_env and "
                "dreamer.load do"
            )
    use_onednn()
    if jit == "on" or (jit == "auto" and has_nvidia()):
        keep_programs(os.environ)
    with _without_messages():
        # Level 2 hides information and warnings. Level 3 hides errors, too: without an NVIDIA card
        # there is one, which says that CUDA finds no card. Other errors are exceptions as well.
        os.environ.setdefault(_LEVEL, "2" if has_nvidia() else "3")
        import tensorflow as tf

    if importlib.util.find_spec("distutils") is None:
        # TensorFlow Probability imports it. In Python 3.12 setuptools provides it, by itself only
        # where it is installed, not in a folder of PYTHONPATH.
        with contextlib.suppress(ImportError):
            importlib.import_module("setuptools")
    for gpu in tf.config.list_physical_devices("GPU"):
        # Several trials, and EGL, share a card: take what is needed, not all there is.
        with contextlib.suppress(RuntimeError):  # the GPU is in use already, as the user has set it
            tf.config.experimental.set_memory_growth(gpu, True)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
        if not tf.config.list_physical_devices("GPU"):
            # For CPUs this compiles nothing, but it turns TensorFlow's memory optimizer off, which
            # makes sums of three or more large tensors add them in the order they become ready.
            tf.config.optimizer.set_jit("autoclustering")


def use_onednn() -> None:
    """Has TensorFlow use oneDNN on every x86 processor, if it has not been imported yet.

    By itself it does so only with AVX-512 VNNI. Its own convolutions take up to four times as long
    (docs/speed.md). The user's TF_ENABLE_ONEDNN_OPTS decides, if it is set.
    """
    if platform.machine() in ("x86_64", "AMD64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def describe_device(system: Path = Path("/")) -> str:
    """Names the device that TensorFlow runs on. If it cannot use the machine's GPU, says why.

    `system` is the root of the file system that describes the machine.
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
        "'tensorflow[and-cuda]==2.21.*'), see whether nvidia-smi shows the card; "
        "python -m dreamer.gpu_check says what is missing"
    )


def has_nvidia(system: Path = Path("/")) -> bool:
    """Whether this machine has an NVIDIA card, with or without a driver for it."""
    if any(system.glob("proc/driver/nvidia/gpus/*")) or any(system.glob("dev/nvidia[0-9]*")):
        return True
    return any(
        vendor.read_text().strip() == _NVIDIA
        and vendor.with_name("class").read_text().startswith(_DISPLAY)
        for vendor in system.glob("sys/bus/pci/devices/*/vendor")
    )


@contextlib.contextmanager
def _without_messages() -> Iterator[None]:
    """Filters the messages of TensorFlow's libraries out of the standard error.

    No variable switches these messages off. Another process filters them, so that the last lines
    of this one arrive even if it crashes.
    """
    if _LEVEL in os.environ or not shutil.which("grep") or sys.stderr is None:  # None: closed
        yield
        return
    standard_error = os.dup(2)
    command = ["grep", "--line-buffered", "-a", "-v", "-E", _MESSAGES]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=standard_error, start_new_session=True
    ) as grep:
        assert grep.stdin is not None
        os.dup2(grep.stdin.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
