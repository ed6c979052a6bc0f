"""The questions of `dreamer.gpu_check` to processes of their own, which a broken library may crash.

The answers are facts without judgement; `dreamer.benchmarks.gpu_checks` judges them.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import math
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.benchmarks.services import random_timesteps
from dreamer.config.config import load_config
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.system.tensorflow import prepare_tensorflow
from dreamer.training.build import make_agent

#: Libraries that TensorFlow 2.21 opens before it uses a card, and the packages that bring them.
NEEDED = {
    "libcudart.so.12": "nvidia-cuda-runtime-cu12", "libcublas.so.12": "nvidia-cublas-cu12",
    "libcublasLt.so.12": "nvidia-cublas-cu12", "libcufft.so.11": "nvidia-cufft-cu12",
    "libcusolver.so.11": "nvidia-cusolver-cu12", "libcusparse.so.12": "nvidia-cusparse-cu12",
    "libcudnn.so.9": "nvidia-cudnn-cu12",
}  # fmt: skip
#: Libraries that only some work needs.
OPTIONAL = {
    "libnccl.so.2": "nvidia-nccl-cu12, for several GPUs",
    "libcupti.so.12": "nvidia-cuda-cupti-cu12, for TensorFlow's profiler",
}
#: Debian's and Ubuntu's packages of the libraries that OpenGL needs.
OPENGL = {"libEGL.so.1": "libegl1", "libOpenGL.so.0": "libopengl0", "libGL.so.1": "libgl1"}
EGL_VENDORS = "/etc/glvnd/egl_vendor.d:/usr/share/glvnd/egl_vendor.d"  # glvnd's own folders
#: Observations and actions of dmc_walker_walk.
SPACES = (
    {"image": Space((64, 64, 3), np.dtype(np.uint8), 0, 255)},
    Space((6,), np.dtype(np.float32), -1.0, 1.0),
)


class Probes:
    """What a check's process finds out. Answers are of JSON types."""

    def driver(self) -> dict[str, Any]:
        """The driver's version, the cards, and what is wrong ("" if nothing)."""
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # all cards, not only those that it shows
        smi = _run("nvidia-smi", "--query-gpu=driver_version,memory.used", "--format=csv,noheader")
        driver, _, used = (smi.partition("\n")[0] if smi.count(",") else "").partition(", ")
        path = Path("/proc/driver/nvidia/version")
        if not driver and path.exists():
            driver = next(iter(re.findall(r"\d+\.\d+(?:\.\d+)?", path.read_text())), "")
        found: dict[str, Any] = {
            "driver": driver, "used": used, "nvidia_smi": smi[:2000], "cuda": 0, "cards": [],
            "problem": "", "nvml": load_error("libnvidia-ml.so.1"),
        }  # fmt: skip
        if problem := load_error("libcuda.so.1"):
            return {**found, "problem": problem}
        lib, number = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
        if status := lib.cuInit(0):
            name = ctypes.c_char_p()
            lib.cuGetErrorName(status, ctypes.byref(name))
            return {**found, "problem": f"cuInit says {(name.value or b'?').decode()} ({status})"}
        lib.cuDriverGetVersion(ctypes.byref(number))
        found["cuda"] = number.value
        lib.cuDeviceGetCount(ctypes.byref(number))
        found["cards"] = [_card(lib, index) for index in range(number.value)]
        return found

    def libraries(self) -> dict[str, Any]:
        """For each library of CUDA, the error of loading it, or ""; cuDNN's version."""
        errors = {name: load_error(name) for name in (*NEEDED, *OPTIONAL)}
        cudnn = 0
        if not errors["libcudnn.so.9"]:
            cudnn = int(ctypes.CDLL(find_library("libcudnn.so.9")).cudnnGetVersion())
        release = f"{cudnn // 10000}.{cudnn % 10000 // 100}.{cudnn % 100}" if cudnn else ""
        return {"errors": errors, "cudnn": release}

    def tensorflow(self) -> dict[str, Any]:
        """Its version, GPUs, what `auto` chooses, and errors of products and convolutions.

        The errors are in standard deviations of the results, which the CPU computes in float32.
        """
        import tensorflow as tf

        from dreamer.agent.precision import choose_jit, choose_precision

        prepare_tensorflow()
        gpus = tf.config.list_physical_devices("GPU")
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        precision, errors = choose_precision("auto"), {}
        for dtype in dict.fromkeys(("float32", precision)):
            for work, result in _products(dtype, "GPU:0" if gpus else "CPU:0").items():
                expected = _products("float32", "CPU:0")[work]
                error = np.abs(result - expected).max() / expected.std()
                errors[f"{dtype} {work}"] = float(error) if np.isfinite(error) else 1e9
        return {
            "version": tf.__version__, "gpus": [str(found.get("device_name")) for found in details],
            "precision": precision, "jit": choose_jit("auto"), "errors": errors,
            "cuda_build": tf.test.is_built_with_cuda(),
        }  # fmt: skip

    def compiler_files(self) -> dict[str, str]:
        """Paths of ptxas (after its release) and libdevice, from the folders where XLA looks."""
        named = re.findall(r"xla_gpu_cuda_data_dir=(\S+)", os.environ.get("XLA_FLAGS", ""))
        roots = [Path(x) for x in (*named, *_packages("cuda_nvcc"), "/usr/local/cuda", "/opt/cuda")]
        ptxas = [str(x / "bin/ptxas") for x in roots if (x / "bin/ptxas").exists()]
        ptxas += [found for found in (shutil.which("ptxas"),) if found]
        release = re.findall(r"release ([\d.]+)", _run(ptxas[0], "--version")) if ptxas else []
        libdevice = [x / "nvvm/libdevice/libdevice.10.bc" for x in roots]
        return {
            "ptxas": " ".join([*release[:1], *ptxas[:1]]),
            "libdevice": next((str(path) for path in libdevice if path.exists()), ""),
        }

    def xla(self) -> dict[str, Any]:
        """Compiles a function that needs libdevice; seconds, and the error as of `tensorflow`."""
        import tensorflow as tf

        prepare_tensorflow()
        x = tf.constant(_numbers((64, 64)))

        def work(x: tf.Tensor) -> tf.Tensor:
            return tf.math.log1p(tf.abs(x @ x)) ** 1.3 + tf.math.atan2(x, x * x) + tf.math.erf(x)

        with tf.device("CPU:0"):
            expected = work(x).numpy()
        start = time.perf_counter()
        result = tf.function(work, jit_compile=True, autograph=False)(x)
        error = np.abs(result.numpy() - expected).max() / expected.std()
        return {
            "seconds": time.perf_counter() - start, "error": float(np.nan_to_num(error, nan=1e9)),
            "device": result.device.rpartition("device:")[2],
        }  # fmt: skip

    def opengl(self) -> dict[str, Any]:
        """For each library of OpenGL, the error of loading it, or ""; glvnd's files of vendors."""
        if named := os.environ.get("__EGL_VENDOR_LIBRARY_FILENAMES"):
            files = [Path(name) for name in named.split(":")]
        else:
            folders = os.environ.get("__EGL_VENDOR_LIBRARY_DIRS") or EGL_VENDORS
            files = [x for name in folders.split(":") for x in sorted(Path(name).glob("*.json"))]
        texts = {str(x): x.read_text(errors="replace") for x in files if x.exists()}
        return {
            "errors": {name: load_error(name) for name in (*OPENGL, "libEGL_nvidia.so.0")},
            "vendors": list(texts),
            "nvidia_vendor": next((name for name, text in texts.items() if "nvidia" in text), ""),
        }

    def render(self) -> dict[str, Any]:
        """Renders with MuJoCo; returns OpenGL's name and the median seconds of a picture."""
        from dm_control.mujoco import Physics
        from OpenGL import GL

        physics = Physics.from_xml_string(
            "<mujoco><worldbody><light pos='0 0 2'/><geom size='1'/></worldbody></mujoco>"
        )
        with physics.contexts.gl.make_current() as context:
            name = context.call(GL.glGetString, GL.GL_RENDERER) or b"unknown"
        seconds = []
        for _ in range(20):
            start = time.perf_counter()
            image = physics.render(64, 64)
            seconds.append(time.perf_counter() - start)
        if not image.any():
            raise UserError("the picture is black")
        return {"renderer": name.decode(errors="replace"), "seconds": float(np.median(seconds))}

    def updates(self, preset: str, count: int, jit: str) -> dict[str, Any]:
        """Updates Dreamer `count` times with random images, after a first time that compiles.

        Returns the seconds of the first update, the median of the others, the losses of the world
        model (None if not finite), and the settings.
        """
        import tensorflow as tf

        from dreamer.agent.precision import choose_jit

        config = load_config(*filter(None, [preset]), overrides={"jit": jit})
        batch = random_timesteps(
            *SPACES, (config.train.batch_size, config.train.batch_length), seed=0
        )
        agent, losses, ends = make_agent(config, *SPACES), [], [time.perf_counter()]
        for number in range(count + 1):
            loss = float(agent.train_step(batch, number)["model_loss"])
            losses.append(loss if math.isfinite(loss) else None)
            ends.append(time.perf_counter())
        seconds = np.diff(ends).tolist()
        found = {
            "first_seconds": seconds[0], "seconds": float(np.median(seconds[1:])),
            "all_seconds": seconds, "losses": losses, "precision": agent.precision,
            "jit": "on" if choose_jit(jit) else "off",
        }  # fmt: skip
        if tf.config.list_physical_devices("GPU"):
            found["gpu_peak_bytes"] = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        return found


def load_error(name: str) -> str:
    """Loads a library as TensorFlow finds it, and returns "", or the error in a line."""
    try:
        ctypes.CDLL(find_library(name))
    except OSError as error:
        return " ".join(str(error).split())
    return ""


def find_library(name: str) -> str:
    """Returns the path of a library of NVIDIA's packages beside TensorFlow, or only its name."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(name)
        return name
    return next((str(x) for folder in _packages("*") for x in folder.glob(f"lib/{name}")), name)


def _packages(name: str) -> list[Path]:
    """Returns the folders of NVIDIA's packages, which TensorFlow looks for beside itself."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.origin:
        return []
    return sorted((Path(spec.origin).parents[1] / "nvidia").glob(name))


def _run(*command: str) -> str:
    """Returns what a program prints; "" if there is none, or it fails or hangs."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, errors="replace", check=True
        ).stdout.strip()
    return ""


def _card(lib: ctypes.CDLL, index: int) -> dict[str, Any]:
    """Returns the name, compute capability and memory of a card, from the driver's library."""
    device, number, size = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    lib.cuDeviceGet(ctypes.byref(device), index)
    lib.cuDeviceGetName(name, len(name), device)
    lib.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    capability = []
    for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
        lib.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        capability.append(number.value)
    return {"name": name.value.decode(errors="replace"), "capability": capability,
            "memory_bytes": size.value}  # fmt: skip


def _numbers(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _products(dtype: str, device: str) -> dict[str, np.ndarray]:
    """Returns a matrix product, a convolution and the gradients of both, as float32."""
    import tensorflow as tf

    with tf.device(device):
        a, b, images, kernel = (
            tf.cast(_numbers(shape), dtype)
            for shape in ((256, 256), (256, 256), (4, 32, 32, 8), (4, 4, 8, 16))
        )
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([images, kernel])
            product, convolved = a @ b, tf.nn.conv2d(images, kernel, 2, "VALID")
        found = {"product": product, "convolution": convolved}
        for name, source in (("image gradient", images), ("kernel gradient", kernel)):
            found[name] = tape.gradient(convolved, source, output_gradients=convolved)
        return {name: tf.cast(value, tf.float32).numpy() for name, value in found.items()}
