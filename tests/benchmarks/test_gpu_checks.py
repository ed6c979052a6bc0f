"""`dreamer.gpu_check`: on this machine, and what it says of machines with an NVIDIA card."""

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from whole_runs import python

from dreamer.benchmarks import gpu_checks
from dreamer.benchmarks.gpu_checks import GpuCheck, ProbeError, advise
from dreamer.benchmarks.gpu_probes import NEEDED, Probes
from dreamer.errors import UserError
from dreamer.gpu_check import CHECKS, main
from dreamer.system.tensorflow import has_nvidia

CARD = {"name": "NVIDIA H100", "capability": [9, 0], "memory_bytes": 80 * 2**30}
LIBRARIES = dict.fromkeys(("libEGL.so.1", "libOpenGL.so.0", "libGL.so.1"), "")
#: The facts of a machine where all is well.
WELL: dict[str, dict[str, Any]] = {
    "driver": {"driver": "570.86.15", "used": "4 MiB", "cuda": 12080, "cards": [CARD],
               "problem": "", "nvml": ""},
    "libraries": {"errors": dict.fromkeys(NEEDED, ""), "cudnn": "9.28.0"},
    "tensorflow": {"version": "2.21.0", "gpus": ["NVIDIA H100"], "precision": "bfloat16",
                   "jit": True, "errors": {"bfloat16 product": 0.01}, "cuda_build": True},
    "compiler_files": {"ptxas": "12.9 /x/ptxas", "libdevice": "/x/libdevice.10.bc"},
    "xla": {"device": "GPU:0", "seconds": 0.5, "error": 1e-6},
    "opengl": {"errors": {**LIBRARIES, "libEGL_nvidia.so.0": ""}, "nvidia_vendor": "/x.json"},
    "render": {"renderer": "NVIDIA H100/PCIe/SSE2", "seconds": 0.0004},
    "updates": {"losses": [9.0, 8.0], "precision": "bfloat16", "jit": "on", "seconds": 0.012,
                "first_seconds": 40.0, "gpu_peak_bytes": 2**32},
}  # fmt: skip


def check(monkeypatch: pytest.MonkeyPatch, **changed: Any) -> tuple[GpuCheck, dict[str, str]]:
    """The check of a machine that is well but for `changed`, and its lines by the check's name.

    A change replaces facts of a probe, or is the error that the probe ends with.
    """
    facts = {name: {"log": "", **found} for name, found in WELL.items()}

    def ask(method: str, **_: Any) -> dict[str, Any]:
        change = changed.get(method, {})
        if isinstance(change, Exception):
            raise change
        return {**facts[method], **change}

    monkeypatch.setattr(gpu_checks, "ask", ask)
    monkeypatch.setattr(gpu_checks, "has_nvidia", lambda: True)
    monkeypatch.setattr("dreamer.training.build.has_nvidia", lambda system: True)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    if "CUDA_VISIBLE_DEVICES" not in changed:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpu_check, lines = GpuCheck([], updates=1), dict[str, str]()
    for finding in gpu_check.run():
        text = "\n".join(finding.lines())
        lines[finding.check] = f"{lines[finding.check]}\n{text}" if finding.check in lines else text
    json.dumps(gpu_check.report(), allow_nan=False)
    return gpu_check, lines


def test_a_machine_where_all_is_well(monkeypatch: pytest.MonkeyPatch):
    gpu_check, lines = check(monkeypatch)
    assert gpu_check.well and gpu_check.conclusion() == "all is well"
    assert all(line.split()[1] == "ok:" for text in lines.values() for line in text.splitlines())
    assert "570.86.15, for CUDA up to 12.8" in lines["driver"]
    assert "NVIDIA H100, compute capability 9.0, 80.0 GiB (4 MiB in use)" in lines["card"]
    assert "auto is bfloat16, jit auto is on" in lines["settings"]
    assert "12.0 ms" in lines["speed"] and len(lines["speed"].splitlines()) == 2
    assert set(lines) == {"machine", "card", "settings", *CHECKS}  # all can be skipped by name


CUDNN = {"errors": {**dict.fromkeys(NEEDED, ""), "libcudnn.so.9": "libcudnn.so.9: too short"}}
NO_EGL = {"errors": {**LIBRARIES, "libEGL_nvidia.so.0": "cannot open"}, "nvidia_vendor": ""}
BLOCKED = """I0000 dso_loader.cc:144] Could not load dynamic library 'libcufft.so.11'; dlerror: x
W0000 gpu_device.cc:2365] Cannot dlopen some GPU libraries."""


@pytest.mark.parametrize(("name", "changed", "expected"), [
    ("driver", {"driver": {"problem": "libcuda.so.1: cannot open", "cards": []}},
     "apt-get install libnvidia-compute-570"),
    ("driver", {"driver": {"driver": "", "problem": "libcuda.so.1: cannot open", "cards": []}},
     "install NVIDIA's driver, 525"),
    ("driver", {"driver": {"problem": "cuInit says CUDA_ERROR_UNKNOWN (999)", "cards": []}},
     "rmmod nvidia_uvm"),
    ("driver", {"driver": {"cuda": 11080}}, "install driver 525"),
    ("driver", {"driver": {"nvml": "libnvidia-ml.so.1: cannot open"}}, "libnvidia-compute-570"),
    ("card", {"driver": {"cards": [{**CARD, "capability": [5, 2]}]}}, "is too old"),
    ("libraries", {"libraries": CUDNN}, "-> pip install nvidia-cudnn-cu12\n"),
    ("tensorflow", {"tensorflow": {"gpus": [], "log": BLOCKED}}, "cannot open libcufft.so.11\n"),
    ("tensorflow", {"tensorflow": {"gpus": [], "cuda_build": False}}, "without CUDA"),
    ("tensorflow", {"tensorflow": {"errors": {"bfloat16 product": 2.0}}}, "wrong: bfloat16"),
    ("xla", {"xla": ProbeError("raised", "INTERNAL: libdevice not found at ./libdevice.10.bc", "")},
     "pip install nvidia-cuda-nvcc-cu12"),
    ("xla", {"xla": {"error": 1.0}}, "WRONGLY"),
    ("xla", {"xla": ProbeError("died", "killed by SIGABRT", "LLVM ERROR: PTX version 8.5 does not "
                               "support target 'sm_120'.")}, "-> TensorFlow 2.21 has code for"),
    ("rendering", {"opengl": NO_EGL, "render": {"renderer": "llvmpipe (LLVM 15)"}},
     "apt-get install -y libnvidia-gl-570"),
    ("rendering", {"render": ProbeError("died", "killed by SIGSEGV", "EGL_NOT_INITIALIZED")},
     "crashed: killed by SIGSEGV"),
    ("training", {"updates": {"losses": [1.0, None]}}, "not finite"),
    ("training", {"updates": ProbeError("raised", "RESOURCE_EXHAUSTED: OOM", "")}, "nvidia-smi"),
])  # fmt: skip
def test_what_is_missing_is_named_with_what_to_do(
    name: str, changed: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
):
    gpu_check, lines = check(monkeypatch, **changed)
    assert not gpu_check.well and name in gpu_check.conclusion()
    assert lines[name].split()[1] == "wrong:" and expected in lines[name]


def test_a_hidden_card_is_no_missing_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    gpu_check, lines = check(monkeypatch, CUDA_VISIBLE_DEVICES="-1", tensorflow={"gpus": []})
    assert "hides it" in lines["card"] and not gpu_check.well
    assert "ok: TensorFlow" in lines["tensorflow"] and "left out" in lines["speed"]


class Broken(Probes):
    """Probes of a machine with broken libraries."""

    def libraries(self) -> dict[str, Any]:
        print("the library's last words", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
        return {}

    def driver(self) -> dict[str, Any]:
        signal.pause()
        return {}


def test_a_crash_or_a_hanging_driver_does_not_end_the_report(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu_checks, "PROBES", f"{__name__}:Broken")
    machine, libraries = GpuCheck([name for name in CHECKS if name != "libraries"], 1).run()
    assert libraries.state == "wrong" and libraries.text == "crashed: killed by SIGSEGV"
    assert "the library's last words" in libraries.advice
    with pytest.raises(ProbeError, match=r"hangs: no reply within 0.5 s"):
        gpu_checks.ask("driver", timeout=0.5)


def test_messages_that_are_not_known_are_shown():
    assert advise("one\n\ntwo\nthree\nfour") == ("two", "three", "four")


@pytest.mark.skipif(has_nvidia(), reason="is about machines without an NVIDIA card")
def test_a_machine_without_a_card(tmp_path: Path):
    """A real run; the small training is tested below."""
    path = tmp_path / "gpu.json"
    done = python("-m", "dreamer.gpu_check", "--skip", "training", "--json", path)
    lines = dict(x.split(maxsplit=1) for x in done.stdout.splitlines() if not x.startswith(" "))
    assert done.returncode == 2 and not done.stderr
    assert lines["driver"].startswith("wrong: no GPU")
    assert lines["libraries"].startswith("left out: missing of CUDA 12 and cuDNN 9: libcud")
    assert "finds no GPU; products and convolutions are right" in lines["tensorflow"]
    assert lines["xla"].startswith("ok: compiles for the CPU:0")
    assert lines["rendering"].startswith("ok: EGL renders 64x64 in")
    assert "jit auto is off" in lines["settings"] and lines["speed"].startswith("left out")
    assert done.stdout.splitlines()[-1].startswith("to be mended: driver (")
    found = json.loads(path.read_text())
    assert not found["well"] and {x["check"] for x in found["checks"]} == set(lines) - {"to"}


@pytest.mark.slow
def test_the_small_training_learns_with_numbers():
    facts = Probes().updates("debug", 2, "off")
    assert len(facts["losses"]) == 3 and all(map(math.isfinite, facts["losses"]))
    assert 0 < facts["seconds"] < facts["first_seconds"] and facts["jit"] == "off"


@pytest.mark.parametrize(("words", "expected"), [
    ("--skip speeds", "--skip must be one of driver"),
    ("--updates 0", "--updates must be at least 1"),
    ("--json /nowhere/at/all.json", "--json cannot write /nowhere/at/all.json"),
    ("--seed 1", "unknown"),
])  # fmt: skip
def test_usage_errors(words: str, expected: str):
    with pytest.raises(UserError) as caught:
        main(words.split())
    assert expected in str(caught.value)
