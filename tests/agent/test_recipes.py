"""The presets of DreamerV2 and V3 as a whole, at a tiny size, alone and with the variants."""

from typing import Any

import numpy as np
import pytest
from small_agent import (
    BOTH,
    CONTINUOUS,
    ONEHOT,
    RECIPE_SIZES,
    VECTORS,
    make_agent,
    make_batch,
    make_timesteps,
    parts_that_differ,
    update,
    weights,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("eagerly")

PLANNER = {
    "planner__candidates": 8, "planner__num_elites": 3, "planner__iterations": 2,
    "planner__horizon": 3,
}  # fmt: skip
# What has to be set beside a variant; without it the config is refused in one line.
VARIANTS: dict[str, dict[str, Any]] = {
    "contrastive": {},
    "reward_only": {},
    "overshooting": {"loss__overshooting": 3},
    "planet": {**PLANNER, "value__replay_scale": 0.0},
    "no_value": {"value__replay_scale": 0.0},
    "explore_then_task": {"disagreement__until": 10, "disagreement__units": 8},
    "stochastic_only": {"rssm__blocks": 0},
    "deterministic_only": {
        "rssm__blocks": 0, "rssm__classes": 0, "loss__kl_balance": 0.0, "loss__overshooting": 3,
        "replay__latents": "zeros",
    },
}  # fmt: skip


def recipe(preset: str, obs_space=VECTORS, act_space=CONTINUOUS, **more: Any):
    return make_agent(obs_space, act_space, preset=preset, **{**RECIPE_SIZES, **more})


def batch_for(agent, number: int = 0, obs_space=VECTORS, act_space=CONTINUOUS):
    batch = make_batch(obs_space, act_space, seed=number)
    size = agent.world_model.rssm.feat_size
    batch["latent"] = np.random.default_rng(number).normal(size=(3, size)).astype(np.float32)
    return batch


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("preset", ["v2_atari", "v3"])
def test_every_variant_learns_and_acts(preset: str, variant: str) -> None:
    act_space = ONEHOT if preset == "v2_atari" else CONTINUOUS
    agent = recipe(f"{preset} {variant}", act_space=act_space, **VARIANTS[variant])
    metrics = update(agent, make_batch(act_space=act_space))
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["skipped"] == 0.0
    action, _ = agent.policy(make_timesteps(), None)
    assert np.abs(action).max() <= 1.0


@pytest.mark.parametrize("act_space", [CONTINUOUS, ONEHOT], ids=["continuous", "onehot"])
def test_v3_trains_every_weight_and_its_slow_copy_follows(act_space) -> None:
    agent = recipe("v3", BOTH, act_space, optimizer__model_lr=1e-2, optimizer__warmup=0)
    start = agent.state_arrays()
    for number in range(2):  # reward and value begin with outputs of 0, which pass no gradient
        before = agent.state_arrays()
        update(agent, batch_for(agent, number, BOTH, act_space), number)
    after = agent.state_arrays()
    moved = {"model", "actor", "value", "slow_value", "return_range", "shared"}
    assert parts_that_differ(start, after) == moved
    for name, network in agent.networks.named().items():
        for variable in network.trainable_variables if name != "slow_value" else ():
            key = f"{name}/{variable.path}"
            assert not np.array_equal(start[key], after[key]), key
    for own, slow in zip(agent.value.variables, agent.networks.slow_value.variables, strict=True):
        old = before[f"slow_value/{slow.path}"]
        expected = old + 0.02 * (after[f"value/{own.path}"] - old)
        np.testing.assert_allclose(slow.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_v3_comes_back_bit_for_bit() -> None:
    agent, again = recipe("v3"), recipe("v3")
    update(agent, batch_for(agent))
    again.load_arrays(agent.state_arrays())
    for other in (agent, again):
        update(other, batch_for(other, 1), 1)
    theirs = again.state_arrays()
    for key, value in agent.state_arrays().items():
        np.testing.assert_array_equal(theirs[key], value, err_msg=key)


@pytest.mark.parametrize(
    ("preset", "precision"), [("v2_atari", "bfloat16"), ("v3", "bfloat16"), ("v3", "float16")]
)
def test_mixed_precision_has_about_the_losses_of_float32(preset: str, precision: str) -> None:
    agents = [recipe(preset, BOTH, precision=which) for which in ("float32", precision)]
    exact, rounded = (update(agent, batch_for(agent, obs_space=BOTH)) for agent in agents)
    assert rounded["nonfinite"] == 0.0 and exact.keys() == rounded.keys()
    assert not rounded["skipped"] or precision == "float16"  # its loss scale begins too high
    for key in ("model_loss", "reward_loss", "discount_loss", "image_loss", "value_loss"):
        assert rounded[key] == pytest.approx(exact[key], rel=0.02), key
    assert all(value.dtype != np.float16 for value in weights(agents[1]).values())
