"""Chooses the OpenGL that MuJoCo renders with, on machines without a display.

dm_control reads its backend from the environment variable MUJOCO_GL when it is imported. The choice
is made before, by rendering a frame with each candidate in a process of its own, because a missing
or broken driver may kill the process that tries it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

from dreamer.errors import UserError
from dreamer.system.processes import try_python

#: Candidates, in the order of trial. EGL is a GPU's or software; OSMesa is always software.
CANDIDATES = ("egl", "osmesa")
OFF = ("off", "disable", "disabled", "false", "0")
HELP = (
    "install one, on Debian or Ubuntu with: "
    "apt-get install -y libegl1 libgl1-mesa-dri libopengl0 libosmesa6; "
    "or learn without images: --configs states"
)
PROBE = """
import mujoco
from dm_control.mujoco import Physics
physics = Physics.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 2'/><geom size='1'/></worldbody></mujoco>")
assert physics.render(64, 64).any(), "the frame is black"
"""

# In a process of its own, because this one may not load OpenGL. 0x323A is EGL_CUDA_DEVICE_NV.
_ORDINALS = """
from ctypes import CDLL, CFUNCTYPE, POINTER, byref, c_int, c_ssize_t, c_uint, c_void_p
find = CDLL("libEGL.so.1").eglGetProcAddress
find.restype = c_void_p
query = CFUNCTYPE(c_uint, c_int, POINTER(c_void_p), POINTER(c_int))(find(b"eglQueryDevicesEXT"))
attribute = CFUNCTYPE(c_uint, c_void_p, c_int, POINTER(c_ssize_t))(find(b"eglQueryDeviceAttribEXT"))
devices, count, value = (c_void_p * 64)(), c_int(), c_ssize_t()
assert query(64, devices, byref(count))
for device in devices[:count.value]:
    print(value.value if attribute(device, 0x323A, byref(value)) else -1)
"""


def show_mujoco_warnings() -> None:
    """Lets MuJoCo, if it is loaded, print its warnings, not write MUJOCO_LOG.TXT where it runs."""
    if mujoco := sys.modules.get("mujoco"):
        mujoco.set_mju_user_warning(lambda text: print(f"MuJoCo: {text}", file=sys.stderr))


def backend_variables(egl_device: int = -1) -> dict[str, str]:
    """Returns the environment variables that a process needs to render.

    Args:
        egl_device: Index of the EGL device; -1: the driver's choice.

    Raises:
        UserError: MUJOCO_GL switches rendering off; or it is unset or empty and no candidate
            renders. If a device is asked for, EGL is the only candidate.
    """
    device = {"MUJOCO_EGL_DEVICE_ID": str(egl_device)} if egl_device >= 0 else {}
    chosen = os.environ.get("MUJOCO_GL") or _first_that_renders(tuple(device.items()))
    if chosen.lower() in OFF:
        raise UserError(
            f"images were asked for, but MUJOCO_GL={chosen} switches rendering off: "
            "unset it, or learn without images: --configs states"
        )
    return {"MUJOCO_GL": chosen, **device}


def devices_of_gpus(count: int, visible: str | None, ordinals: Sequence[int]) -> list[int]:
    """Returns the EGL devices of the first `count` GPUs that a process computes on; 0: all.

    Args:
        count: Number of GPUs that the process uses.
        visible: CUDA_VISIBLE_DEVICES, such as Ray sets it for each trial; None: all GPUs.
        ordinals: For each EGL device, the number that CUDA gives it, as `cuda_ordinals` returns.
    """
    devices = {ordinal: device for device, ordinal in enumerate(ordinals) if ordinal >= 0}
    words = map(str, sorted(devices)) if visible is None else visible.split(",")
    gpus = [int(word) for word in words if word.strip().isdigit()]
    return [devices[gpu] for gpu in gpus[: count or None] if gpu in devices]


@functools.cache
def cuda_ordinals() -> list[int]:
    """Returns, for each EGL device, CUDA's number of that GPU, or -1; [] if EGL does not say."""
    # CUDA's own numbers, not those among the visible devices.
    variables = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    command = [sys.executable, "-c", _ORDINALS]
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        done = subprocess.run(
            command, env=variables, capture_output=True, text=True, check=True, timeout=60
        )
        return [int(word) for word in done.stdout.split()]
    return []


@functools.cache
def _first_that_renders(device: tuple[tuple[str, str], ...]) -> str:
    failures = []
    # OSMesa has no devices: it would silently render on another one than was asked for.
    for backend in ("egl",) if device else CANDIDATES:
        problem = probe({**dict(device), "MUJOCO_GL": backend})
        if not problem:
            return backend
        failures.append(f"{backend}: {problem}")
    raise UserError(f"no OpenGL renders on this machine ({'; '.join(failures)}); {HELP}")


def probe(variables: dict[str, str]) -> str:
    """Renders one frame in a new process; returns "", or the problem in one line."""
    platform = variables["MUJOCO_GL"]
    return try_python(PROBE, {**os.environ, **variables, "PYOPENGL_PLATFORM": platform})


def prepare(egl_device: int = -1) -> None:
    """Sets the variables in this process, for an environment that renders in it.

    Raises UserError as `backend_variables`; or if this process has loaded TensorFlow, which
    crashes together with a software OpenGL (seen with TensorFlow 2.21 and Mesa 22.3).
    """
    if sys.modules.get("tensorflow") is not None:
        raise UserError(
            "an environment that renders cannot share a process with TensorFlow, whose libraries "
            "and a software OpenGL crash each other: use dreamer.make_env, or for several "
            "EnvPool of dreamer.envs.processes.pool, which run them in processes of their own"
        )
    loaded = sys.modules.get("dm_control._render")
    if loaded is None:
        os.environ.update(backend_variables(egl_device))
    elif loaded.BACKEND in OFF:
        raise UserError(
            "dm_control was loaded without OpenGL for an earlier environment of this process, "
            "which had no images: make those with images first, or use dreamer.make_env"
        )


@contextlib.contextmanager
def switched_off() -> Iterator[None]:
    """Keeps dm_control's first import from loading OpenGL, for processes with TensorFlow."""
    before = {key: value for key, value in os.environ.items() if key == "MUJOCO_GL"}
    os.environ["MUJOCO_GL"] = "off"
    try:
        yield
    finally:
        del os.environ["MUJOCO_GL"]
        os.environ.update(before)
