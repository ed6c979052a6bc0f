"""The agent in bfloat16 and float16."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from rounding import rounding_error
from small_agent import (
    BOTH,
    make_agent,
    make_batch,
    make_timesteps,
    parts_that_differ,
    update,
)

pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.mark.parametrize(("precision", "eager"), [("bfloat16", False), ("float16", True)])
def test_mixed_precision_learns_the_same_in_float32(precision: str, eager: bool) -> None:
    batch = make_batch(BOTH, size=2, length=5)
    expected = update(make_agent(BOTH, discount__enabled=True), batch)
    mixed = make_agent(BOTH, precision=precision, discount__enabled=True)
    before = mixed.state_arrays()
    tf.config.run_functions_eagerly(eager)
    metrics = mixed.train_step(batch, 0)
    assert {v.dtype for v in metrics.values()} == {tf.float32}
    actual = {k: float(v) for k, v in metrics.items()}
    # Five products, each with two factors and a result, forwards and backwards through five steps.
    through_time = rounding_error(precision, 5 * 3 * 2 * 5)
    for key in ("model_loss", "image_loss", "reward_loss", "joints_loss", "discount_loss"):
        # A head's output: two factors, product and bias are rounded in each of two layers.
        assert actual[key] == pytest.approx(expected[key], rel=rounding_error(precision, 8)), key
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


def test_an_overflow_halves_the_scale_and_skips_the_update() -> None:
    agent, batch = make_agent(precision="float16"), make_batch()
    batch["reward"][0, 1] = np.inf
    before = agent.state_arrays()
    agent.train_step(batch, 0)
    after = agent.state_arrays()
    assert after["model/adam/loss_scale"] == 2.0**14
    for key, value in before.items():
        if key.startswith("model/") and not key.endswith(("loss_scale", "good_updates")):
            np.testing.assert_array_equal(value, after[key], err_msg=key)
