"""The published numbers in defaults and presets, and docs/presets.md, which compares them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamer.config.config import load_config
from dreamer.config.schema import find_configs, flatten, load_schema, preset_files
from dreamer.io.yaml_files import read_yaml

TABLE = Path(__file__).resolve().parents[2] / "docs" / "presets.md"
HEADING = "## Every preset, key by key"


def rows() -> list[list[str]]:
    """preset, key, published, ours, difference of each row of the last table."""
    section = TABLE.read_text(encoding="utf-8").partition(HEADING)[2]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("preset", [name for name in sorted(preset_files()) if name != "debug"])
def test_every_key_of_a_preset_stands_beside_the_published_one(preset: str) -> None:
    keys = load_schema()
    content = read_yaml(find_configs() / "presets" / f"{preset}.yaml")
    content.pop("inherit", None)
    values = {k: keys[k].coerce(v) for k, v in flatten(content, keys).items()}
    told = {key: (published, ours) for name, key, published, ours, _ in rows() if name == preset}
    assert set(told) == set(values), f"docs/presets.md, {HEADING}: {preset} sets other keys"
    for key, (published, ours) in told.items():
        assert published and keys[key].coerce(ours) == values[key], key


def test_no_row_is_of_a_preset_that_is_gone_or_says_nothing() -> None:
    for row in rows():
        assert len(row) == 5 and all(row), row
        assert row[0] in sorted(preset_files())


# The published numbers, variants' included: what the defaults are, whoever edits them.
PUBLISHED = {
    "steps": 5_000_000,
    "envs.action_repeat": 2,
    "train.batch_size": 50,
    "train.batch_length": 50,
    "train.prefill": 5000,
    "train.pretrain": 100,
    "train.every": 1000,
    "train.updates": 100,
    "encoder.cnn_depth": 32,
    "decoder.cnn_depth": 32,
    "rssm.stoch": 30,
    "rssm.deter": 200,
    "rssm.hidden": 200,
    "rssm.min_std": 0.1,
    "reward.layers": 2,
    "value.layers": 3,
    "actor.layers": 4,
    "reward.units": 400,
    "value.units": 400,
    "actor.units": 400,
    "discount.enabled": False,
    "discount.layers": 3,
    "discount.units": 400,
    "discount.scale": 10.0,
    "contrastive.layers": 3,
    "contrastive.units": 400,
    "contrastive.init_std": 1.0,
    "contrastive.min_std": 0.01,
    "contrastive.negatives": "observations",
    "contrastive.batch_shifts": 10,
    "contrastive.time_shifts": 30,
    "actor.mean_scale": 5.0,
    "actor.init_std": 5.0,
    "actor.min_std": 1e-4,
    "actor.gradient": "dynamics",
    "actor.entropy": 0.0,
    "actor.mode_samples": 100,
    "loss.kl_scale": 1.0,
    "loss.free_nats": 3.0,
    "loss.free_nats_per_step": False,
    "loss.kl_balance": 0.0,
    "loss.overshooting": 1,
    "behavior.horizon": 15,
    "behavior.gamma": 0.99,
    "behavior.lambda_": 0.95,
    "planner.candidates": 1000,
    "planner.num_elites": 100,
    "planner.iterations": 10,
    "planner.horizon": 12,
    "planner.returns": "reward",
    "optimizer.model_lr": 6e-4,
    "optimizer.actor_lr": 8e-5,
    "optimizer.value_lr": 8e-5,
    "optimizer.eps": 1e-7,
    "optimizer.clip": 100.0,
    "explore.noise_scale": 0.3,
    "explore.decay_steps": 0,
    "eval.every": 10_000,
    "eval.episodes": 10,
}
DISCRETE = {
    "envs.action_repeat": 4,
    "reward.transform": "tanh",
    "loss.kl_scale": 0.1,
    "loss.free_nats": 3.0,
    "behavior.horizon": 10,
    "explore.kind": "epsilon",
    "explore.noise_scale": 0.4,
    "explore.final": 0.1,
    "explore.decay_steps": 200_000,
    "explore.unit": "updates",
}
ATARI = {
    "envs.time_limit": 108_000,
    "discount.enabled": True,
    "eval.every": 100_000,  # ours: whole games are long
}


def test_the_main_job_has_the_published_numbers():
    flat = load_config(task="dmc_walker_walk").flat()
    assert {name: flat[name] for name in PUBLISHED} == PUBLISHED


@pytest.mark.parametrize(
    ("task", "own"),
    [("atari_pong", ATARI), ("dmlab_rooms_watermaze", {"discount.enabled": False})],
)
def test_the_discrete_suites_differ_by_the_published_numbers(task: str, own: dict):
    flat = load_config(task=task).flat()
    expected = {**PUBLISHED, **DISCRETE, **own}
    assert {name: flat[name] for name in expected} == expected
