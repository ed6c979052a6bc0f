"""Which precision and compiler are chosen; the agent in bfloat16 and float16."""

import numpy as np
import pytest
import tensorflow as tf
from rounding import rounding_error
from small_agent import BOTH, make_agent, make_batch, make_timesteps, parts_that_differ, update

from dreamer.agent import precision
from dreamer.nets.heads import Value


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


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(("low", "eager"), [("bfloat16", False), ("float16", True)])
def test_mixed_precision_learns_the_same_in_float32(low: str, eager: bool) -> None:
    batch = make_batch(BOTH, size=2, length=5)
    expected = update(make_agent(BOTH, discount__enabled=True), batch)
    mixed = make_agent(BOTH, precision=low, discount__enabled=True)
    before = mixed.state_arrays()
    tf.config.run_functions_eagerly(eager)
    metrics = mixed.train_step(batch, 0)
    assert {v.dtype for v in metrics.values()} == {tf.float32}
    actual = {k: float(v) for k, v in metrics.items()}
    # Five products, each with two factors and a result, forwards and backwards through five steps.
    through_time = rounding_error(low, 5 * 3 * 2 * 5)
    for key in ("model_loss", "image_loss", "reward_loss", "joints_loss", "discount_loss"):
        # A head's output: two factors, product and bias are rounded in each of two layers.
        assert actual[key] == pytest.approx(expected[key], rel=rounding_error(low, 8)), key
    for key in ("kl", "imagined_return", "actor_loss", "value_loss", "post_entropy"):
        assert actual[key] == pytest.approx(expected[key], rel=through_time), key
    for _ in range(4):  # float16's first scale may be too large; each refusal halves it
        if actual["model_grad_finite"]:
            break
        actual = update(mixed, batch)
    assert [actual[f"{p}_grad_finite"] for p in ("model", "actor", "value")] == [1.0] * 3
    assert actual["model_grad_norm"] == pytest.approx(expected["model_grad_norm"], rel=through_time)
    after = mixed.state_arrays()
    for value in after.values():
        assert np.isfinite(value).all() and value.dtype != np.float16
    assert parts_that_differ(before, after) >= {"model", "actor", "value"}
    action, _ = mixed.policy(make_timesteps(BOTH), None)
    assert action.dtype == np.float32


def test_float16_scales_its_losses_and_others_do_not() -> None:
    scaling = make_agent(precision="float16").state_arrays()
    plain = make_agent(precision="bfloat16").state_arrays()
    for part in ("model", "actor", "value"):
        assert scaling[f"{part}/adam/loss_scale"] == 2.0**15
        assert plain[f"{part}/adam/loss_scale"] == 1.0
