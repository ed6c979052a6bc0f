"""Every variant of the world model: whole runs, read back; acting, planning and predicting.

What makes a variant different is tested beside the code that does it.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from small_agent import VECTORS, make_agent, make_batch, make_timesteps
from whole_runs import ROOT, metrics_of, state_of

from dreamer import load_config, train
from dreamer.errors import UserError
from dreamer.runs.checkpoints import Checkpoints

VECTOR_TASK = f"{ROOT}/tests/counting_env.py:make"
IMAGE_TASK = f"{ROOT}/tests/curtain_env.py:make"
VECTOR = {"encoder.keys": "vector", "decoder.keys": "vector"}
TINY = {
    "steps": 64, "precision": "float32",
    "train.prefill": 40, "train.pretrain": 1, "train.every": 20, "train.updates": 1,
    "contrastive.layers": 1, "contrastive.units": 16, "train.batch_length": 5,
    "behavior.horizon": 2, "eval.every": 1000, "eval.episodes": 1,
    "eval.videos": 0, "log.every": 20, "log.video_every": 1000, "log.terminal": "plain",
    "log.tensorboard": False, "checkpoint.every": 1000,
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("eagerly")

# Presets, two at a time where they concern different parts -> metrics that they add to the default
# agent's ("-": that it lacks). What a decoder of images watches is learnt from images.
VARIANTS = {
    ("contrastive", "stochastic_only"): {
        "model/contrastive_loss", "model/kl_loss", "model/image_loss",
    },
    ("deterministic_only", "reward_only"): {"-model/kl_loss", "-model/kl", "model/vector_loss"},
    ("kl_balance", "overshooting"): {
        "model/overshooting_loss", "model/overshooting_kl", "model/vector_loss",
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("presets", VARIANTS, ids="+".join)
def test_it_trains(presets: tuple[str, ...], tmp_path: Path) -> None:
    images = "model/image_loss" in VARIANTS[presets]
    task, keys = (IMAGE_TASK, {}) if images else (VECTOR_TASK, VECTOR)
    overrides = {**TINY, **keys, "logdir": str(tmp_path)}
    config = load_config("debug", *presets, task=task, overrides=overrides)
    result = train(config)
    assert (result.step, result.updates) == (64, 2)
    assert result.path.parent.name == "_".join(["dreamer", *sorted(("debug", *presets))])
    lines = metrics_of(result.path)
    assert lines[-1]["step"] == 64 and lines[-1]["updates"] == 2
    learnt = {k: v for line in lines for k, v in line.items() if k.startswith("model/")}
    assert all(math.isfinite(v) for line in lines for v in line.values() if isinstance(v, float))
    assert {k: v for k, v in learnt.items() if k.endswith("_finite") and v != 1.0} == {}
    usual = {"model/model_loss", "model/reward_loss"}
    for metric in VARIANTS[presets] | usual:
        assert (metric.removeprefix("-") in learnt) != metric.startswith("-"), metric
    assert math.isfinite(result.eval_return)
    assert state_of(result.path)["update"] == 2
    checkpoint = Checkpoints(result.path / "checkpoints").load_latest()
    assert checkpoint is not None and len(checkpoint.arrays) > 50
    biases = [v for k, v in checkpoint.arrays.items() if "/decoder/" in k and k.endswith("/bias")]
    assert len(biases) > 1 and all(np.any(v) for v in biases)  # zeros before: diagnostics learn
    again = train(config)  # builds the agent, loads the checkpoint, and finds nothing left to do
    assert again == result
    assert metrics_of(result.path) == lines


KINDS = ("full", "stochastic_only", "deterministic_only")
PLANNER = {"behavior__policy": "planner", "planner__candidates": 6, "planner__num_elites": 2,
           "planner__iterations": 2, "planner__horizon": 3}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", [{}, PLANNER], ids=["actor", "planner"])
def test_every_kind_acts_learns_and_predicts(kind: str, policy: dict) -> None:
    agent = make_agent(rssm__kind=kind, **policy)
    state = None
    for step in range(3):
        action, state = agent.policy(make_timesteps(first=step == 0, seed=step), state)
        assert action.shape == (4, 2) and np.abs(action).max() <= 1.0
    metrics = agent.train_step(make_batch(), 0)
    assert all(np.isfinite(float(v)) for v in metrics.values())
    assert {float(v) for k, v in metrics.items() if k.endswith("_finite")} == {1.0}
    shown = agent.predict(make_batch(), context=3)
    for key in (*VECTORS, "reward"):
        assert shown[f"model/{key}"].shape == shown[f"truth/{key}"].shape
        assert np.isfinite(shown[f"model/{key}"]).all()


def test_disagreement_needs_a_latent() -> None:
    with pytest.raises(UserError, match="disagreement.until needs a stochastic latent"):
        make_agent(rssm__kind="deterministic_only", disagreement__until=100)


@pytest.mark.slow
@pytest.mark.parametrize("presets", VARIANTS, ids="+".join)
def test_graphs_are_made_once(presets: tuple[str, ...]) -> None:
    config = load_config("debug", *presets, task="small:agent")
    flat = {k.replace(".", "__"): v for k, v in config.flat().items() if k.startswith("loss.")}
    agent = make_agent(**flat, rssm__kind=config.rssm.kind)
    for update in range(3):
        agent.train_step(make_batch(seed=update), update)
    assert agent._update.experimental_get_tracing_count() == 1
