"""The message about the device, the search for an NVIDIA card, and the silence of TensorFlow."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from dreamer.system import tensorflow
from dreamer.system.tensorflow import (
    describe_device,
    has_nvidia,
    prepare_tensorflow,
    use_onednn,
)


def add_card(system: Path, vendor: str, kind: str, slot: str = "0000:01:00.0") -> None:
    """A PCI device as Linux shows it."""
    folder = system / "sys/bus/pci/devices" / slot
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(f"{vendor}\n")
    (folder / "class").write_text(f"{kind}\n")


def test_an_nvidia_card_is_found_without_its_driver(tmp_path: Path):
    assert not has_nvidia(tmp_path)
    add_card(tmp_path, "0x1002", "0x030000", "0000:00:01.0")  # another maker's
    add_card(tmp_path, "0x10de", "0x040300", "0000:00:02.0")  # its sound, not its picture
    assert not has_nvidia(tmp_path)
    add_card(tmp_path, "0x10de", "0x030200", "0000:00:03.0")
    assert has_nvidia(tmp_path)


@pytest.mark.parametrize("place", ["proc/driver/nvidia/gpus/0000:01:00.0", "dev/nvidia0"])
def test_an_nvidia_card_is_found_by_its_driver(place: str, tmp_path: Path):
    (tmp_path / place).mkdir(parents=True)
    assert has_nvidia(tmp_path)


def test_a_card_that_tensorflow_cannot_use_is_told_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if tf.config.list_physical_devices("GPU"):
        assert describe_device(tmp_path).startswith("GPU: ")
        return
    assert describe_device(tmp_path) == "no GPU found, so this runs on the CPU"
    add_card(tmp_path, "0x10de", "0x030200")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    text = describe_device(tmp_path)
    assert text.startswith("warning: this machine has an NVIDIA GPU, but TensorFlow cannot use it")
    assert "tensorflow[and-cuda]" in text and "nvidia-smi" in text
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert describe_device(tmp_path).startswith("CUDA_VISIBLE_DEVICES=-1 hides the GPU")


def test_deterministic_sums_do_not_depend_on_which_part_is_ready_first(
    monkeypatch: pytest.MonkeyPatch,
):
    """TensorFlow's optimizer of memory adds the parts of large sums as they become ready."""
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("of CPUs")
    monkeypatch.setattr(tensorflow, "_SOFTWARE_GL", re.compile("$^"))  # tests may have rendered
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: None)
    prepare_tensorflow(deterministic=True)

    @tf.function(autograph=False)
    def total(x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_max(tf.add_n([tf.sin(x), tf.cos(x), tf.exp(x)]))

    inner = context.context()
    inner.enable_graph_collection()
    try:
        total(tf.ones([20_000_000]))  # the parts take more than is thought to be free: 256 MB
        graphs = inner.export_run_metadata().partition_graphs
    finally:
        inner.disable_graph_collection()
        tf.config.optimizer.set_jit(False)
    operations = {node.op for graph in graphs for node in graph.node}
    assert "AddN" in operations and "TemporaryVariable" not in operations


@pytest.mark.parametrize(
    ("machine", "chosen", "used"),
    [("x86_64", None, "1"), ("x86_64", "0", "0"), ("arm64", None, None)],
)
def test_x86_processors_use_onednn_unless_the_user_says_otherwise(
    machine: str, chosen: str | None, used: str | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if chosen is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", chosen)
    use_onednn()
    assert os.environ.get("TF_ENABLE_ONEDNN_OPTS") == used
    os.environ.pop("TF_ENABLE_ONEDNN_OPTS", None)


QUIET = """
import os, platform, sys
import dreamer.benchmark, dreamer.evaluate, dreamer.predict, dreamer.run
import baselines.evaluate, baselines.run
from dreamer.system import tensorflow
for agent in baselines.registry.AGENTS:
    baselines.registry.experience_of(agent)
assert "tensorflow" not in sys.modules  # no program imports it before it is prepared
with tensorflow._without_messages():
    os.write(2, b"I0000 00:00:17.5    42 cudart_stub.cc:31] Could not find cuda drivers\\n")
    os.write(2, b"F0000 00:00:17.5    42 cpu_feature_guard.cc:7] no such instruction\\n")
tensorflow.prepare_tensorflow()
import tensorflow as tf
from tensorflow.python.util import _pywrap_util_port
tf.constant(1) + 1
assert _pywrap_util_port.IsMklEnabled() == (platform.machine() in ("x86_64", "AMD64"))
print("our own words", file=sys.stderr)
"""


def test_programs_show_no_messages_of_tensorflow():
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", QUIET], env=environment, capture_output=True, text=True, check=False
    )
    fatal, own = done.stderr.splitlines()
    assert fatal.endswith("no such instruction") and own == "our own words"
