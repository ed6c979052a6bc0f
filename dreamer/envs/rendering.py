"""Which OpenGL MuJoCo renders with, on a machine without a display.

dm_control binds its backend when it is imported, from the environment variable MUJOCO_GL. So the
choice is made before, by rendering a frame with each candidate in a process of its own: a missing
or broken driver may kill the process that tries it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Iterator

from dreamer.errors import UserError

#: Tried in this order. EGL may be a GPU's or software, OSMesa is always software.
CANDIDATES = ("egl", "osmesa")
OFF = ("off", "disable", "disabled", "false", "0")
HELP = (
    "install one, on Debian or Ubuntu with: "
    "apt-get install -y libegl1 libgl1-mesa-dri libopengl0 libosmesa6; "
    "or learn without images: --configs dmc_proprio"
)
PROBE_TIMEOUT = 120.0  # seconds; a first import from a cold disk is slow
PROBE = """
import mujoco
from dm_control.mujoco import Physics
physics = Physics.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 2'/><geom size='1'/></worldbody></mujoco>")
assert physics.render(64, 64).any(), "the frame is black"
"""


def backend_variables(egl_device: int = -1) -> dict[str, str]:
    """Returns the environment variables a process that renders must start with.

    Args:
        egl_device: index of the EGL device; -1 leaves the choice to the driver.

    Raises:
        UserError: MUJOCO_GL is unset (or empty) and no candidate renders, EGL alone where a device
            is asked for; or MUJOCO_GL switches rendering off.
    """
    device = {"MUJOCO_EGL_DEVICE_ID": str(egl_device)} if egl_device >= 0 else {}
    chosen = os.environ.get("MUJOCO_GL")
    if chosen:
        if chosen.lower() in OFF:
            raise UserError(
                f"images were asked for, but MUJOCO_GL={chosen} switches rendering off: "
                "unset it, or learn without images: --configs dmc_proprio"
            )
        return {"MUJOCO_GL": chosen, **device}
    return {"MUJOCO_GL": _first_that_renders(tuple(device.items())), **device}


@functools.cache
def _first_that_renders(device: tuple[tuple[str, str], ...]) -> str:
    failures = []
    # OSMesa knows no devices: in place of the one asked for it would be another without a word.
    for backend in ("egl",) if device else CANDIDATES:
        problem = _probe({**dict(device), "MUJOCO_GL": backend})
        if problem is None:
            return backend
        failures.append(f"{backend}: {problem}")
    raise UserError(f"no OpenGL renders on this machine ({'; '.join(failures)}); {HELP}")


def _probe(variables: dict[str, str]) -> str | None:
    """Renders one frame in a new process; returns None, or what went wrong in one line."""
    environ = {**os.environ, **variables, "PYOPENGL_PLATFORM": variables["MUJOCO_GL"]}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", PROBE], env=environ, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=PROBE_TIMEOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no frame within {PROBE_TIMEOUT:.0f} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines and done.returncode > 0 else f"killed by signal {-done.returncode}"


def prepare(egl_device: int = -1) -> None:
    """Sets the variables in this process, for an environment that is to render in it.

    Raises:
        UserError: as `backend_variables`; or TensorFlow is loaded here: a software OpenGL and
            TensorFlow crash together in one process (seen with TensorFlow 2.21 and Mesa 22.3).
    """
    if sys.modules.get("tensorflow") is not None:
        raise UserError(
            "an environment that renders cannot share a process with TensorFlow, whose libraries "
            "and a software OpenGL crash each other: use EnvPool of dreamer.envs.processes.pool, "
            "which runs environments in processes of their own"
        )
    loaded = sys.modules.get("dm_control._render")
    if loaded is None:
        os.environ.update(backend_variables(egl_device))
    elif loaded.BACKEND in OFF:
        raise UserError(
            "dm_control was loaded without OpenGL for an earlier environment of this process, "
            "which had no images: make those with images first, or use EnvPool of "
            "dreamer.envs.processes.pool"
        )


@contextlib.contextmanager
def switched_off() -> Iterator[None]:
    """While it lasts, dm_control's first import loads no OpenGL, for processes with TensorFlow."""
    before = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = "off"
    try:
        yield
    finally:
        if before is None:
            del os.environ["MUJOCO_GL"]
        else:
            os.environ["MUJOCO_GL"] = before


def renderer_name(physics: object) -> str:
    """Returns what OpenGL calls the renderer of a dm_control physics' context."""
    from OpenGL import GL

    with physics.contexts.gl.make_current() as context:  # type: ignore[attr-defined]
        name = context.call(GL.glGetString, GL.GL_RENDERER)
    return name.decode(errors="replace") if name else "unknown"
