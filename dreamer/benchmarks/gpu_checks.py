"""Is an NVIDIA card ready to train? `GpuCheck` judges what `Probes` find out.

Each check asks a process of its own, which a broken library may crash or hang, and turns the facts
into a `Finding` or two: fine, or what to install.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dreamer.benchmarks.gpu_probes import NEEDED, OPENGL, OPTIONAL
from dreamer.benchmarks.services import Service
from dreamer.envs import rendering
from dreamer.errors import UserError
from dreamer.system.machine import machine
from dreamer.system.tensorflow import has_nvidia
from dreamer.training.build import software_rendering

OLDEST_CUDA = 12000  # of the driver, as cuDriverGetVersion says it
OLDEST_DRIVER = "525.60.13"
#: Environment of the probes: TensorFlow prints its messages, and the libraries that it opens.
LOUD = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "dso_loader=1"}
TIMEOUT, LONG = 180.0, 1800.0  # seconds that a check and a measurement may take
#: Largest error of a product, in standard deviations of the result. Rounding alone makes 0.003 in
#: float32 (GPUs compute in TF32, with 10 bits), 0.008 in float16 and 0.06 in bfloat16.
TOLERANCE = {"float32": 0.02, "float16": 0.03, "bfloat16": 0.2}
PROBES = "dreamer.benchmarks.gpu_probes:Probes"  # what the processes run
_WIDTH = 12  # columns of a check's name
_INSTALL = "make setup, or pip install -r requirements-gpu.lock"

#: What to do about TensorFlow's reasons to use no card, as regular expressions.
REASONS = {
    r"Could not find cuda drivers": "TensorFlow does not find libcudart.so.12 (its words name the "
    f"driver, which may be well): pip install nvidia-cuda-runtime-cu12, or {_INSTALL}",
    r"Cannot dlopen some GPU libraries": f"install the libraries that are missing: {_INSTALL}",
    r"failed call to cuInit": "the driver does not answer: see what nvidia-smi says",
}
#: What to do about messages of TensorFlow, XLA, CUDA and OpenGL.
KNOWN = {
    r"does not support target 'sm_|ERROR_INVALID_PTX|ERROR_INVALID_HANDLE": "TensorFlow 2.21 has "
    "code for compute capabilities up to 9.0, and this card is newer: update the driver, then try "
    "--jit off, then NVIDIA's own container of TensorFlow",
    r"libdevice not found|Can't find libdevice": "XLA needs libdevice.10.bc: pip install "
    "nvidia-cuda-nvcc-cu12, or name a CUDA folder that has nvvm/libdevice: export "
    "XLA_FLAGS=--xla_gpu_cuda_data_dir=/usr/local/cuda",
    r"[Pp]txas|No PTX compilation provider": "XLA needs ptxas of CUDA 12 that knows this card: pip "
    "install nvidia-cuda-nvcc-cu12",
    r"Unknown flags? in XLA_FLAGS": "XLA_FLAGS has a word that this TensorFlow does not know: "
    "unset XLA_FLAGS",
    r"OUT_OF_MEMORY|RESOURCE_EXHAUSTED|OOM when allocating": "the card's memory is full: see with "
    "nvidia-smi who uses it, and end that, or use smaller batches",
    r"INSUFFICIENT_DRIVER|driver version is insufficient|SYSTEM_DRIVER_MISMATCH": "the driver does "
    f"not fit: install {OLDEST_DRIVER} or newer, and start the machine anew",
    r"NO_BINARY_FOR_GPU|no kernel image": "this TensorFlow has no code for this card, which must "
    "have compute capability 6.0 or more",
    r"CUDNN_STATUS|DNN library|runtime CuDNN library": "cuDNN does not work: pip install "
    "nvidia-cudnn-cu12, and see that LD_LIBRARY_PATH names no older one",
    r"No module named": "this Python lacks a package: run `source .venv/bin/activate` in the "
    "checkout first (make setup makes .venv)",
    r"EGL_NOT_INITIALIZED|EGL display|eglQueryString|gladLoadGL|libEGL|libOpenGL|libGL": "apt-get "
    "install -y libegl1 libgl1 libopengl0 and, for the GPU, libnvidia-gl-NNN of the driver's "
    "number NNN; in a container set NVIDIA_DRIVER_CAPABILITIES=all",
}


@dataclass
class Finding:
    """The result of a check: its state is "ok", "wrong" or "left out"."""

    check: str
    state: str
    text: str
    advice: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0  # since the check began

    def lines(self) -> Iterator[str]:
        """Yields the line for the user, and one for each piece of advice."""
        yield f"{self.check:<{_WIDTH}}{self.state}: {self.text}"
        for line in self.advice:
            yield f"{'':<{_WIDTH}}-> {line}"


class ProbeError(Exception):
    """A probe raised an error, died or hung; `log` is what its process printed."""

    def __init__(self, kind: str, message: str, log: str):
        words = {"died": "crashed", "timed out": "hangs"}
        super().__init__(f"{words.get(kind, 'fails')}: {' '.join(message.split())[:300]}")
        self.log = log


class GpuCheck:
    """Runs all checks but those in `skipped`; `updates` are measured at full size."""

    def __init__(self, skipped: Collection[str], updates: int) -> None:
        self._skipped, self._updates = skipped, updates
        self._card = has_nvidia()  # whether there is one
        self._gpu = self._card  # whether TensorFlow uses it
        self._driver = ""
        self._findings: list[Finding] = []

    @property
    def well(self) -> bool:
        """Whether there is a card and no check has found anything wrong."""
        return self._card and all(finding.state != "wrong" for finding in self._findings)

    def report(self) -> dict[str, Any]:
        """Returns all findings so far, of JSON types."""
        return {"well": self.well, "checks": [asdict(finding) for finding in self._findings]}

    def conclusion(self) -> str:
        """Returns the last line for the user."""
        wrong = [finding.check for finding in self._findings if finding.state == "wrong"]
        if wrong:
            return f"to be mended: {', '.join(wrong)} (docs/gpu.md says more about each message)"
        if not self._card:
            return "no NVIDIA GPU: runs use the CPU"
        return "all is well" if not self._skipped else "what was checked is well"

    def run(self) -> Iterator[Finding]:
        """Yields the findings as they come."""
        checks: dict[str, Callable[[], Iterator[Finding]]] = {
            "driver": self._check_driver, "libraries": self._check_libraries,
            "tensorflow": self._check_tensorflow, "xla": self._check_xla,
            "rendering": self._check_rendering, "training": self._check_training,
            "speed": self._check_speed,
        }  # fmt: skip
        self._findings.append(Finding("machine", "ok", describe_machine()))
        yield self._findings[-1]
        for name in (name for name in checks if name not in self._skipped):
            start = time.perf_counter()
            for finding in self._guarded(name, checks[name]):
                finding.seconds = time.perf_counter() - start
                self._findings.append(finding)
                yield finding

    def _guarded(self, name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
        try:
            yield from check()
        except (ProbeError, UserError) as error:
            log = getattr(error, "log", "")
            yield Finding(name, "wrong", str(error), advise(f"{log}\n{error}"), {"log": log})

    def _check_driver(self) -> Iterator[Finding]:
        facts = ask("driver")
        self._driver = facts["driver"]
        cards, problem = facts["cards"], facts["problem"]
        self._card = self._gpu = self._card or bool(cards)
        if not self._card:
            text = "no GPU: neither the PCI bus nor a driver shows an NVIDIA card"
            advice = ("in a container: start it with --gpus all; in a cluster: ask for a GPU",)
            yield Finding("driver", "wrong", text, advice, facts)
            return
        if problem or not cards:
            text = f"there is a card, but no usable driver: {problem or 'it lists no card'}"
            yield Finding("driver", "wrong", text, driver_advice(facts), facts)
            return
        text = f"NVIDIA driver {self._driver or '?'}, for CUDA up to {cuda(facts['cuda'])}"
        if facts["cuda"] < OLDEST_CUDA:
            advice = (f"install driver {OLDEST_DRIVER} or newer: TensorFlow 2.21 uses CUDA 12",)
            yield Finding("driver", "wrong", f"{text}, is too old", advice, facts)
        elif facts["nvml"]:
            text += f", but without its management library: {facts['nvml']}"
            advice = (
                "TensorFlow finds no GPU without it: apt-get install "
                f"{compute_package(self._driver)}, or start the container with "
                "NVIDIA_DRIVER_CAPABILITIES=all",
            )
            yield Finding("driver", "wrong", text, advice, facts)
        else:
            yield Finding("driver", "ok", text, (), facts)
        yield self._judge_cards(cards, facts["used"])

    def _judge_cards(self, cards: list[dict[str, Any]], used: str) -> Finding:
        listed = "; ".join(
            f"{card['name']}, compute capability {'.'.join(map(str, card['capability']))}, "
            f"{card['memory_bytes'] / 2**30:.1f} GiB"
            for card in cards
        )
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        if hidden is not None and hidden.strip() in ("", "-1"):
            self._gpu = False
            text = f"{listed}; CUDA_VISIBLE_DEVICES={hidden} hides it"
            return Finding("card", "wrong", text, ("unset CUDA_VISIBLE_DEVICES",))
        if min(card["capability"] for card in cards) < [6, 0]:
            advice = ("TensorFlow 2.21 needs compute capability 6.0; 8.0 trains in bfloat16",)
            return Finding("card", "wrong", f"{listed} is too old", advice)
        text = f"{listed} ({used} in use)" if used else listed
        if max(card["capability"] for card in cards) > [9, 0]:
            text += "; newer than TensorFlow 2.21, whose first start may take half an hour"
        return Finding("card", "ok", text)

    def _check_libraries(self) -> Iterator[Finding]:
        facts = ask("libraries")
        missing = {name: error for name, error in facts["errors"].items() if error}
        packages = dict.fromkeys(NEEDED[name] for name in missing if name in NEEDED)
        without = [f"{name} ({OPTIONAL[name]})" for name in missing if name in OPTIONAL]
        if packages:
            named = "; ".join(
                name if "No such file" in error and error.startswith(name) else f"{name} ({error})"
                for name, error in missing.items()
                if name in NEEDED
            )
            advice = (f"pip install {' '.join(packages)}", f"or all of them: {_INSTALL}")
            state = "wrong" if self._card else "left out"
            text = f"missing of CUDA 12 and cuDNN 9: {named}"
            yield Finding("libraries", state, text, advice if self._card else (), facts)
            return
        text = f"all {len(NEEDED)} of CUDA 12 and cuDNN 9 load"
        text += f" (cuDNN {facts['cudnn']})" if facts["cudnn"] else ""
        text += f"; without {', '.join(without)}" if without else ""
        yield Finding("libraries", "ok", text, (), facts)

    def _check_tensorflow(self) -> Iterator[Finding]:
        facts = ask("tensorflow", timeout=LONG)  # a new kind of card compiles its kernels first
        found = f"TensorFlow {facts['version']}"
        if self._gpu and not facts["gpus"]:
            self._gpu = False
            text, advice = f"{found} does not find the GPU", advise(facts["log"], REASONS)
            missing = re.findall(r"Could not load dynamic library '([^']+)'", facts["log"])
            if not facts["cuda_build"]:
                text, advice = f"{text}: it is built without CUDA", (_INSTALL,)
            elif missing:
                text += f": it cannot open {', '.join(dict.fromkeys(missing))}"
            yield Finding("tensorflow", "wrong", text, advice, facts)
        else:
            where = ", ".join(facts["gpus"]) or "no GPU"
            errors = facts["errors"]
            wrong = [k for k, v in errors.items() if not v <= TOLERANCE[k.partition(" ")[0]]]
            text = f"{found} finds {where}; products and convolutions "
            text += f"are wrong: {', '.join(wrong)}" if wrong else "are right"
            text += f" (largest error {max(errors.values()):.1g} of a standard deviation)"
            advice = ("the card or its driver is faulty: try another driver",) if wrong else ()
            yield Finding("tensorflow", "wrong" if wrong else "ok", text, advice, facts)
        jit = "on" if facts["jit"] else "off"
        text = f"precision auto is {facts['precision']}, jit auto is {jit}"
        yield Finding("settings", "ok", text)

    def _check_xla(self) -> Iterator[Finding]:
        facts = ask("compiler_files")
        names = ("ptxas", "libdevice")
        listed = "; " + ", ".join(f"{name} {facts[name] or 'not found'}" for name in names)
        try:
            facts |= ask("xla", timeout=LONG)
        except ProbeError as error:
            advice = advise(f"{error.log}\n{error}")
            yield Finding("xla", "wrong", f"{error}{listed}", advice, {**facts, "log": error.log})
            return
        right = facts["error"] < TOLERANCE["float32"]
        text = f"compiles for the {facts['device']} in {facts['seconds']:.1f} s, and "
        text += "rightly" if right else f"WRONGLY (error {facts['error']:.1g})"
        text += listed if self._gpu else ""
        yield Finding("xla", "ok" if right else "wrong", text, (), facts)

    def _check_rendering(self) -> Iterator[Finding]:
        chosen = os.environ.get("MUJOCO_GL", "egl")
        devices = rendering.devices_of_gpus(
            1, os.environ.get("CUDA_VISIBLE_DEVICES"), rendering.cuda_ordinals()
        )
        device = {"MUJOCO_EGL_DEVICE_ID": str(devices[0])} if devices else {}
        facts = ask("opengl")
        advice = tuple(self._opengl_advice(facts))
        try:
            egl = {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "egl", **device}
            facts |= ask("render", variables=egl)
        except ProbeError as error:
            facts["log"] = error.log
            advice = advice or advise(f"{error.log}\n{error}")
            yield Finding("rendering", "wrong", f"MuJoCo with EGL {error}", advice, facts)
            return
        text = f"EGL renders 64x64 in {1000 * facts['seconds']:.2f} ms on {facts['renderer']}"
        info = {"renderer": facts["renderer"], "gl": "egl"}
        problem = software_rendering(info).partition(": ")[2] if self._card else ""
        if problem:
            text += ": in software, beside a GPU"
            yield Finding("rendering", "wrong", text, advice or (problem,), facts)
        elif chosen != "egl":
            text += f", but MUJOCO_GL={chosen} keeps runs from it"
            yield Finding("rendering", "wrong", text, ("unset MUJOCO_GL",), facts)
        else:
            yield Finding("rendering", "ok", text, (), facts)

    def _opengl_advice(self, facts: Mapping[str, Any]) -> Iterator[str]:
        errors = facts["errors"]
        if packages := [package for name, package in OPENGL.items() if errors[name]]:
            yield f"apt-get install -y {' '.join(packages)}"
        if self._card and errors["libEGL_nvidia.so.0"]:
            number = self._driver.partition(".")[0] or "NNN"
            yield (
                f"NVIDIA's EGL is missing: apt-get install -y libnvidia-gl-{number}, or start "
                "the container with NVIDIA_DRIVER_CAPABILITIES=all"
            )
        elif self._card and not facts["nvidia_vendor"]:
            yield (
                "no file in /usr/share/glvnd/egl_vendor.d names NVIDIA's EGL: write there "
                '10_nvidia.json: {"file_format_version": "1.0.0", "ICD": {"library_path": '
                '"libEGL_nvidia.so.0"}}, or name such a file in __EGL_VENDOR_LIBRARY_FILENAMES'
            )

    def _check_training(self) -> Iterator[Finding]:
        facts = ask("updates", timeout=LONG, preset="debug", count=20, jit="auto")
        yield _judge_updates(
            "training", f"debug size on the {'GPU' if self._gpu else 'CPU'}", facts
        )

    def _check_speed(self) -> Iterator[Finding]:
        if not self._gpu:
            text = "full size is a GPU's work; python -m dreamer.benchmark measures a CPU"
            yield Finding("speed", "left out", text)
            return
        for jit in ("off", "on"):
            facts = ask("updates", timeout=LONG, preset="", count=self._updates, jit=jit)
            yield _judge_updates("speed", "full size", facts)


def _judge_updates(check: str, name: str, facts: Mapping[str, Any]) -> Finding:
    finite = None not in facts["losses"]
    text = (
        f"{name} in {facts['precision']}, XLA {facts['jit']}: {1000 * facts['seconds']:.1f} ms an "
        f"update, the first {facts['first_seconds']:.1f} s (it compiles)"
    )
    if size := facts.get("gpu_peak_bytes"):
        text += f", {size / 2**30:.1f} GiB of the card"
    text += "" if finite else "; but the losses are not finite"
    return Finding(check, "ok" if finite else "wrong", text, (), facts)


class _Process(Service):
    """A process with `Probes`."""

    def failure(self, kind: str, message: str, details: str) -> Exception:
        return ProbeError(kind, message, f"{self.last_output()}\n{details}".strip())


def ask(
    method: str, variables: Mapping[str, str] = LOUD, timeout: float = TIMEOUT, **arguments: Any
) -> dict[str, Any]:
    """Returns a probe's facts and, as `log`, what its process printed.

    Raises ProbeError if the probe raises an error, or its process dies or takes too long.
    """
    with _Process(PROBES, variables) as process:
        process.send({"method": method, "arguments": arguments})
        facts = process.receive(timeout)[0]["result"]
        return {**facts, "log": process.last_output(100_000)}


def describe_machine() -> str:
    """Returns the versions and the processor in a line."""
    here, versions = machine(), []
    for package in ("tensorflow", "mujoco", "dm_control"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} missing")
    return (
        f"Python {platform.python_version()}, {', '.join(versions)}; {here['processor']}, "
        f"{here['cores']} cores, {here['memory'] / 2**30:.0f} GiB"
    )


def advise(text: str, known: Mapping[str, str] = KNOWN) -> tuple[str, ...]:
    """Returns what to do about the known messages in `text`, or else its last lines."""
    found = tuple(advice for pattern, advice in known.items() if re.search(pattern, text))
    return found or tuple(line.strip()[:300] for line in text.splitlines() if line.strip())[-3:]


def cuda(number: int) -> str:
    """Returns "12.9" for 12090."""
    return f"{number // 1000}.{number % 1000 // 10}"


def compute_package(driver: str) -> str:
    """Returns Ubuntu's package of the driver's libraries for computing."""
    return f"libnvidia-compute-{driver.partition('.')[0] or 'NNN'}"


def driver_advice(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns what to do about a driver that does not work."""
    if facts["driver"] and "libcuda.so.1" in facts["problem"]:
        return (
            f"the kernel has driver {facts['driver']}, but its library libcuda.so.1 is missing: "
            f"apt-get install {compute_package(facts['driver'])}; in a container: start it with "
            "--gpus all (NVIDIA Container Toolkit)",
        )
    if not facts["driver"]:
        return (
            f"install NVIDIA's driver, {OLDEST_DRIVER} or newer (Ubuntu: ubuntu-drivers install; "
            "Debian: apt-get install nvidia-driver), and start the machine anew; in a container: "
            "start it with --gpus all",
        )
    return (
        "start the machine anew, because the kernel's driver and its libraries may be of two "
        "versions; after a suspend: rmmod nvidia_uvm && modprobe nvidia_uvm",
    )
