"""The published numbers in defaults and presets, and docs/presets.md, which compares them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamer.config.config import load_config
from dreamer.config.schema import find_configs, flatten, load_schema, preset_files
from dreamer.io.yaml_files import parse_yaml, read_yaml

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
PUBLISHED = """
steps: 5e6
envs: {action_repeat: 2}
train: {batch_size: 50, batch_length: 50, prefill: 5000, pretrain: 100, every: 1000, updates: 100}
encoder: {cnn_depth: 32}
decoder: {cnn_depth: 32}
rssm: {stoch: 30, deter: 200, hidden: 200, min_std: 0.1}
reward: {layers: 2, units: 400}
value: {layers: 3, units: 400}
discount: {enabled: false, layers: 3, units: 400, scale: 10}
contrastive: {layers: 3, units: 400, init_std: 1, min_std: 0.01, negatives: observations,
  batch_shifts: 10, time_shifts: 30}
actor: {layers: 4, units: 400, mean_scale: 5, init_std: 5, min_std: 1e-4, gradient: dynamics,
  entropy: 0, mode_samples: 100}
loss: {kl_scale: 1, free_nats: 3, free_nats_per_step: false, kl_balance: 0, overshooting: 1}
behavior: {horizon: 15, gamma: 0.99, lambda_: 0.95}
planner: {candidates: 1000, num_elites: 100, iterations: 10, horizon: 12, returns: reward}
optimizer: {model_lr: 6e-4, actor_lr: 8e-5, value_lr: 8e-5, eps: 1e-7, clip: 100}
explore: {noise_scale: 0.3, decay_steps: 0}
eval: {every: 10_000, episodes: 10}
"""
DISCRETE = """
envs: {action_repeat: 4}
reward: {transform: tanh}
loss: {kl_scale: 0.1, free_nats: 3}
behavior: {horizon: 10}
explore: {kind: epsilon, noise_scale: 0.4, final: 0.1, decay_steps: 200_000, unit: updates}
"""
ATARI = """
envs: {time_limit: 108_000}
discount: {enabled: true}
eval: {every: 100_000}  # ours: whole games are long
"""


@pytest.mark.parametrize(
    ("task", "texts"),
    [
        ("dmc_walker_walk", [PUBLISHED]),
        ("atari_pong", [PUBLISHED, DISCRETE, ATARI]),
        ("dmlab_rooms_watermaze", [PUBLISHED, DISCRETE]),
    ],
)
def test_each_suite_has_the_published_numbers(task: str, texts: list[str]):
    """In a suite of discrete actions, later texts replace numbers of earlier ones."""
    flat, expected = load_config(task=task).flat(), {}
    for text in texts:
        expected.update(flatten(parse_yaml(text, "text"), flat))
    assert {name: flat[name] for name in expected} == expected
