"""Which precision and compiler are chosen where nothing is asked for."""

from __future__ import annotations

import pytest
import tensorflow as tf

from dreamer import precision


@pytest.mark.parametrize("asked", ["float32", "bfloat16", "float16"])
def test_what_is_asked_for_is_what_one_gets(asked: str) -> None:
    assert precision.choose_precision(asked) == asked
    policy = precision.dtype_policy(asked)
    assert (policy.variable_dtype, policy.compute_dtype) == ("float32", asked)


def test_auto_without_a_gpu_follows_the_processor() -> None:
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    expected = "bfloat16" if precision.cpu_has_bfloat16() else "float32"
    assert precision.choose_precision("auto") == expected
    assert not precision.choose_jit("auto")


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((6, 1), "float32"), ((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16"),
     ((9, 0), "bfloat16"), (None, "float32")],
)  # fmt: skip
def test_auto_with_a_gpu_follows_its_capability(monkeypatch, capability, expected: str) -> None:
    details = {"compute_capability": capability} if capability else {}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    assert precision.choose_precision("auto") == expected
    assert precision.choose_jit("auto")


def test_compiling_can_be_chosen() -> None:
    assert precision.choose_jit("on") and not precision.choose_jit("off")
