"""Which precision and compiler are chosen where nothing is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from rounding import rounding_error

from dreamer.agent import precision
from dreamer.nets.value import Value


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


@pytest.mark.parametrize("asked", ["bfloat16", "float16"])
def test_large_values_are_told_apart_in_every_precision(asked: str) -> None:
    """Returns of 150 differ by less than 1, the distance of bfloat16's numbers there."""
    feat = tf.random.stateless_normal([64, 30], [0, 1])
    found = {}
    for name in ("float32", asked):
        head = Value(layers=2, units=32, dtype=precision.dtype_policy(name))
        head.build((None, 30))
        for i, variable in enumerate(head.trainable_variables):
            size = 0.1 * tf.random.stateless_normal(variable.shape, [i, 2])
            variable.assign(size if variable.shape != (1,) else [150.0])
        found[name] = head(feat).numpy()
    assert found[asked].dtype == "float32"
    spread = found["float32"].std()
    assert spread < 0.5
    # Two hidden layers, in which two factors, product, bias and ELU are rounded.
    error = np.sqrt(np.mean((found[asked] - found["float32"]) ** 2))
    assert error < rounding_error(asked, 10) * spread
