"""Every variant of behaviour: whole runs with resume, and learning."""

from pathlib import Path
from typing import Any

import curtain_env
import numpy as np
import pytest
import tensorflow as tf
from small_agent import RECIPE_SIZES
from test_learner import TINY
from whole_runs import ROOT, metrics_of, state_of

from dreamer import load_config, train
from dreamer.data.episodes import EpisodeFile
from dreamer.runs.checkpoints import Checkpoints
from dreamer.training.schedule import UpdateSchedule

SEARCH = {
    "planner.candidates": 8, "planner.num_elites": 3, "planner.iterations": 2, "planner.horizon": 3,
}  # fmt: skip
ENSEMBLE = {"disagreement.members": 3, "disagreement.units": 8, "disagreement.layers": 1}
COUNTING = f"{ROOT}/tests/counting_env.py:make"
CURTAIN = f"{ROOT}/tests/curtain_env.py:make"
CARTPOLE = "gym_CartPole-v1"
MIXED = f"{ROOT}/tests/envs/gym_envs.py:Mixed"  # two images, a nested vector, an index
EVERYTHING = {"envs.image": True, "encoder.keys": ".*", "decoder.keys": ".*"}
HEAD = {"contrastive.layers": 1, "contrastive.units": 16}
# These presets' values would replace debug's.
RECIPE = {k.replace("__", "."): v for k, v in RECIPE_SIZES.items() if k != "loss__overshooting"}
VARIANTS: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "no_value": (COUNTING, ["no_value"], {}),
    "one_step": (COUNTING, [], {"behavior.horizon": 1}),
    "score": (MIXED, ["score"], {"actor.entropy": 0.01, **EVERYTHING}),
    "planet": (COUNTING, ["planet"], SEARCH),
    "planet_lambda": (
        CARTPOLE, ["planet"], {**SEARCH, "behavior.value": True, "planner.returns": "lambda"},
    ),
    "explore": (COUNTING, ["explore_then_task"], {"disagreement.until": 60, **ENSEMBLE}),
    # Of the world model, two at a time where they concern different parts.
    "contrastive": (CURTAIN, ["contrastive", "stochastic_only"], {**HEAD, **EVERYTHING}),
    "deterministic": (COUNTING, ["deterministic_only", "reward_only"], {}),
    "kl": (COUNTING, ["kl_balance", "overshooting"], {"train.batch_length": 5}),
    "v2": (MIXED, ["v2_atari"], {**RECIPE, **EVERYTHING}),
    "v3": (CARTPOLE, ["v3"], RECIPE),
}  # fmt: skip
LOSSES = {  # by which a variant's metrics are told
    "no_value": ({"actor_loss"}, {"value_loss", "explorer_actor_loss"}),
    "one_step": ({"actor_loss", "value_loss"}, set()),
    "score": ({"actor_loss", "value_loss"}, set()),
    "planet": (set(), {"actor_loss", "value_loss"}),
    "planet_lambda": ({"value_loss"}, {"actor_loss"}),
    "explore": ({"actor_loss", "value_loss"}, set()),
    "contrastive": ({"contrastive_loss", "kl_loss", "image_loss"}, set()),
    "deterministic": ({"vector_loss"}, {"kl_loss", "kl"}),
    "kl": ({"overshooting_loss", "overshooting_kl", "vector_loss"}, set()),
    "v2": ({"actor_loss", "value_loss", "kl_loss"}, {"return_scale"}),
    "v3": ({"actor_loss", "replayed_value_loss", "return_scale", "kl_loss"}, set()),
}
VALUES: dict[str, Any] = {
    "precision": "float32", "envs.image": False, "envs.state": True, "envs.time_limit": 0,
    "encoder.keys": "(?!image).*", "decoder.keys": "(?!image).*", "steps": 90, "jit": "off",
    "train.prefill": 30, "train.pretrain": 1, "train.every": 20, "train.updates": 1,
    "train.batch_size": 2, "train.batch_length": 4, "behavior.horizon": 3, "eval.every": 50,
    "eval.videos": 0, "log.every": 20, "log.terminal": "plain", "log.tensorboard": False,
    "checkpoint.every": 20,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_trains_stops_and_goes_on(name: str, tmp_path: Path):
    task, presets, own = VARIANTS[name]
    limit = {"envs.time_limit": 25} if task in (CARTPOLE, MIXED) else {}
    values = {**VALUES, **limit, **own, "logdir": str(tmp_path)}
    config = load_config("debug", *presets, task=task, overrides=values)
    first = train(config.replace({"steps": 50}))
    saved = Checkpoints(first.path / "checkpoints").load_latest()
    assert saved is not None
    second = train(config)
    assert second.path == first.path and second.step >= 90 > first.step >= 50
    schedule = UpdateSchedule(prefill=30, pretrain=1, every=20, updates=1)
    assert second.updates == schedule.due(second.step) == state_of(second.path)["update"]
    lines = metrics_of(first.path)
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines})
    for line in lines:
        assert all(np.isfinite(value) for value in line.values())
        assert all(value == 1.0 for key, value in line.items() if key.endswith("_finite"))
    present, absent = LOSSES[name]
    for line in lines:
        assert {f"model/{key}" for key in present | {"model_loss", "reward_loss"}} <= set(line)
        assert not {f"model/{key}" for key in absent} & set(line)
    if task == MIXED:
        losses = {f"model/{key}_loss" for key in ("camera", "depth", "arm/joints", "room")}
        assert losses <= set(lines[-1])
        episode = EpisodeFile(next((first.path / "episodes").glob("*.npz"))).read()
        assert episode["arm/joints"].shape == (26, 4) and episode["depth"].dtype == np.uint8
    if name == "explore":
        told = {line["step"]: "model/explorer_actor_loss" in line for line in lines}
        assert told == {step: step < 60 for step in told} and set(told.values()) == {True, False}
    again = Checkpoints(first.path / "checkpoints").load_latest()
    assert again is not None and set(again.arrays) == set(saved.arrays)
    biases = [v for k, v in again.arrays.items() if "/decoder/" in k and k.endswith("/bias")]
    assert len(biases) > 1 and all(map(np.any, biases))  # zeros before: diagnostics learn, too
    assert "eval/return" in lines[-1]
    assert first.path.parent.name == "_".join(["dreamer", *sorted(("debug", *presets))])
    assert train(config) == second and metrics_of(first.path) == lines  # nothing is left to do


SEARCHED = {"planner.candidates": 100, "planner.num_elites": 10, "planner.iterations": 4}
LEARNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "no_value": ("make", {"behavior.value": False}),
    "planet": ("make", {"behavior.policy": "planner", "planner.horizon": 4, **SEARCHED}),
    "score": ("make_discrete", {"actor.gradient": "score", "explore.noise_scale": 0.2}),
    "explore": ("make", {"disagreement.until": 800, "disagreement.units": 32}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_learns_the_curtain(name: str, tmp_path: Path):
    """As agent/test_learner.py. One seed on one machine: 8.0, 8.4, 7.7 and 8.0 of at best 8.7."""
    tf.config.run_functions_eagerly(False)
    maker, own = LEARNERS[name]
    task = f"{Path(curtain_env.__file__)}:{maker}"
    config = load_config(task=task, overrides={**TINY, **own, "logdir": str(tmp_path)})
    assert train(config).eval_return > 0.6 * curtain_env.best_return()
