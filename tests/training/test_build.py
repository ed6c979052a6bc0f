"""What a run says at its start: its hours, and a rendering that is slow."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from dreamer.config.config import load_config
from dreamer.training.build import forecast, software_rendering
from dreamer.training.schedule import UpdateSchedule

ADVICE = "; this wants a GPU: --configs small is made for pixels on a CPU"


def said(*presets: str, agent: str = "dreamer", steps: float = 25_000) -> str:
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("a GPU is here")
    config = load_config(*presets, task="dmc_walker_walk", overrides={"steps": steps}, agent=agent)
    return forecast(config, UpdateSchedule(5000, 100, 1000, 100), 1.5, 50.0)


def test_the_hours_and_the_preset_for_cpus():
    assert said() == (
        "measured here: 1.50 s an update, 50 frames a second; 25,000 steps with 2,100 updates "
        "will take about 1:00:50 (h:mm:ss, without evaluations)"
    )
    assert said(steps=5e6).endswith(ADVICE)
    assert said(agent="planet", steps=5e6).endswith(ADVICE)
    assert ADVICE not in said(agent="dqn", steps=5e6)  # it does not take the preset


LLVM, CARD = {"gl": "egl", "renderer": "llvmpipe (LLVM 15)"}, {"renderer": "NVIDIA H100/PCIe"}


@pytest.mark.parametrize(("info", "card", "hidden", "warns"), [
    (LLVM, True, None, True), ({"gl": "osmesa", "renderer": "x"}, True, None, True),
    (LLVM, True, "0", True), (LLVM, True, "", False), (LLVM, False, None, False),
    (CARD, True, None, False), ({}, True, None, False),
])  # fmt: skip
def test_software_rendering_beside_a_gpu_is_said(
    info: dict[str, str], card: bool, hidden: str | None, warns: bool, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "dev").mkdir()
    if card:
        (tmp_path / "dev" / "nvidia0").touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    text = software_rendering(info, tmp_path)
    assert ("libnvidia-gl" in text and "NVIDIA_DRIVER_CAPABILITIES" in text) == warns == bool(text)
