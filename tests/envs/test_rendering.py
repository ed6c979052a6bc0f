import os
from pathlib import Path

import pytest
from whole_runs import python

from dreamer.envs import rendering
from dreamer.envs.processes import pool
from dreamer.envs.processes.pool import EnvPool
from dreamer.errors import UserError


@pytest.fixture
def no_choice(monkeypatch):
    """The user has not set MUJOCO_GL, and nothing is remembered from earlier tests."""
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    rendering._first_that_renders.cache_clear()
    yield
    rendering._first_that_renders.cache_clear()


def test_users_choice_is_respected(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert rendering.backend_variables() == {"MUJOCO_GL": "osmesa"}
    assert rendering.backend_variables(1)["MUJOCO_EGL_DEVICE_ID"] == "1"
    monkeypatch.setenv("MUJOCO_GL", "off")
    with pytest.raises(UserError, match="MUJOCO_GL=off switches rendering off"):
        EnvPool("dmc_walker_walk")


def test_choice_renders(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "")  # an empty choice is none
    chosen = rendering.backend_variables()["MUJOCO_GL"]
    assert chosen in rendering.CANDIDATES
    with EnvPool("dmc_pendulum_swingup", shadow_size=64) as pool:
        assert pool.info["gl"] == chosen


def test_osmesa_renders_if_it_is_installed(monkeypatch):
    if problem := rendering.probe({"MUJOCO_GL": "osmesa"}):
        pytest.skip(f"OSMesa does not render here: {problem}")
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with EnvPool("dmc_pendulum_swingup", shadow_size=64) as pool:
        assert pool.info["gl"] == "osmesa"
        assert pool.reset([0])[0]["image"].std() > 1


def test_second_choice_if_the_first_fails(no_choice, monkeypatch):
    """EGL really fails, because the device does not exist."""
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "77")
    if not rendering.probe({"MUJOCO_GL": "osmesa"}):
        assert rendering.backend_variables()["MUJOCO_GL"] == "osmesa"


@pytest.mark.parametrize(("count", "visible", "devices"), [
    (1, None, [2]), (2, None, [2, 0]), (0, None, [2, 0, 3]),
    (1, "1", [0]), (1, "2,1", [3]), (0, "2, 1", [3, 0]),  # as Ray sets it for a trial
    (1, "", []), (1, "-1", []), (1, "7", []), (1, "GPU-1234", []),
])  # fmt: skip
def test_rendering_follows_the_gpus_that_compute(count, visible, devices):
    """EGL has another order than CUDA, and a software device without a number, as Mesa's."""
    assert rendering.devices_of_gpus(count, visible, [1, -1, 0, 2]) == devices


@pytest.mark.parametrize(("visible", "ordinals", "warned"), [
    ("GPU-8932f937", [0, 1], True), ("MIG-377e0049", [0, -1, 1], True),
    ("GPU-8932f937", [0, -1], False), ("1", [0, 1], False),
])  # fmt: skip
def test_gpus_named_without_a_number_are_said(visible, ordinals, warned, monkeypatch, recwarn):
    monkeypatch.delenv("MUJOCO_EGL_DEVICE_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(rendering, "cuda_ordinals", lambda: ordinals)
    assert pool._egl_devices(1) == ([1] if visible == "1" else [])
    assert ["envs.egl_device" in str(w.message) for w in recwarn] == [True] * warned


def test_a_worker_renders_on_the_gpu_of_its_trial(no_choice, monkeypatch):
    found = rendering.cuda_ordinals()
    if not found or rendering.probe({"MUJOCO_GL": "egl"}):
        pytest.skip("EGL does not render here")
    monkeypatch.delenv("MUJOCO_EGL_DEVICE_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr(rendering, "cuda_ordinals", lambda: [3])  # the first device has number 3
    with EnvPool("dmc_pendulum_swingup", shadow_size=64) as pool:
        (child,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()[-1:]
        assert "MUJOCO_EGL_DEVICE_ID=0" in Path(f"/proc/{child}/environ").read_text().split("\0")
        assert pool.reset([0])[0]["image"].std() > 1


def test_the_device_asked_for_or_none(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    with pytest.raises(UserError, match=r"no OpenGL renders on this machine \(egl: [^;]*\);"):
        rendering.backend_variables(egl_device=77)


def test_without_opengl_the_message_says_what_to_install(no_choice, monkeypatch):
    """The only candidate does not exist, as on a machine where none renders."""
    monkeypatch.setattr(rendering, "CANDIDATES", ("nosuchgl",))
    with pytest.raises(UserError, match="no OpenGL renders .* apt-get install -y libegl1"):
        EnvPool("dmc_walker_walk")


@pytest.mark.parametrize("backend", ["nosuchgl", "egl", "glfw"])
def test_unusable_choice_is_one_message(monkeypatch, backend):
    if backend == "glfw" and not rendering.probe({"MUJOCO_GL": backend}):
        pytest.skip("there is a display, and GLFW renders on it")
    monkeypatch.setenv("MUJOCO_GL", backend)
    with pytest.raises(UserError, match="apt-get install"):
        EnvPool("dmc_walker_walk", egl_device=77)


def test_not_beside_tensorflow():
    code = (
        "import sys, types; sys.modules['tensorflow'] = types.ModuleType('tensorflow')\n"
        "from dreamer.envs.make import make_env\n"
        "make_env('dmc_walker_walk')"
    )
    done = python("-c", code)
    assert "cannot share a process with TensorFlow" in done.stderr


def test_states_alone_load_no_opengl():
    """MUJOCO_GL does not matter, because this process may load TensorFlow."""
    code = (
        "import os, sys; os.environ['MUJOCO_GL'] = 'egl'\n"
        "from dreamer.envs.make import make_env\n"
        "make_env('dmc_walker_walk', image=False, state=True).reset(0)\n"
        "assert 'OpenGL' not in sys.modules and os.environ['MUJOCO_GL'] == 'egl'\n"
        "make_env('dmc_walker_walk')"
    )
    done = python("-c", code)
    assert "dm_control was loaded without OpenGL" in done.stderr
