"""Weights from another run: what fits is taken, and what does not is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_agent import BOTH, make_agent, weights
from whole_runs import DEBUG, DebugRuns

from dreamer.config.config import load_config
from dreamer.errors import UserError
from dreamer.run import main, train
from dreamer.runs.checkpoints import Checkpoints
from dreamer.runs.rundir import RunDir
from dreamer.training.initial_weights import take_weights


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an agent whose actor has other units than `make_agent`'s."""
    agent = make_agent(seed=1, actor__units=7)
    return Checkpoints(tmp_path_factory.mktemp("source")).save(40, agent.state_arrays(), {})


@pytest.mark.parametrize(("parts", "behavior"), [("all", {"value"}), ("world_model", set())])
def test_parts_are_taken_as_a_whole(source: Path, parts: str, behavior: set[str]) -> None:
    agent = make_agent(seed=2)
    before, there = agent.state_arrays(), Checkpoints.load(source).arrays
    said = take_weights(agent, str(source), parts)
    after = agent.state_arrays()
    for name, array in after.items():
        taken = name.split("/")[0] in {"model", *behavior} and "/adam/" not in name
        np.testing.assert_array_equal(array, (there if taken else before)[name], err_msg=name)
    took, _, left = said.partition("; not taken: ")
    assert "model/encoder, model/rssm, model/decoder" in took
    assert ("value" in took) == (parts == "all")
    reason = "actor/actor/dense0/kernel is (20, 7) there, (20, 16) here"
    assert (reason if parts == "all" else "actor (as init_parts says); value (as") in left


def test_a_loaded_agent_learns_at_its_own_rates(source: Path) -> None:
    agent = make_agent(actor__units=7, optimizer__model_lr=0.5)
    name = "model/adam/model_adam/learning_rate"
    agent.load_arrays(Checkpoints.load(source).arrays)
    assert agent.state_arrays()[name] == 0.5 != Checkpoints.load(source).arrays[name]


def test_other_observations_leave_out_what_sees_them(source: Path) -> None:
    agent = make_agent(BOTH, seed=2)
    before = weights(agent)
    took, _, left = take_weights(agent, str(source), "all").partition("; not taken: ")
    assert "model/reward" in took and "model/encoder (" in left
    encoder = [name for name in before if "/encoder/" in name]
    after = weights(agent)
    assert all(np.array_equal(before[name], after[name]) for name in encoder)


def test_a_slow_copy_that_is_not_there_begins_as_the_value_network(source: Path) -> None:
    agent = make_agent(seed=2, value__slow_rate=0.02)
    before, there = agent.state_arrays(), Checkpoints.load(source).arrays
    assert "slow_value" in take_weights(agent, str(source), "all").partition("; not taken: ")[0]
    after = agent.state_arrays()
    copies = [name for name in before if name.startswith("slow_value/")]
    for name in copies:
        np.testing.assert_array_equal(after[name], there[name.replace("slow_value", "value")])
    assert copies and any((after[name] != before[name]).any() for name in copies)


def test_what_cannot_be_a_source_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing of .* fits .*: model/enc.* here.*; model/rssm"):
        take_weights(make_agent(rssm__deter=9, encoder__mlp_units=9), str(source), "all")
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="neither a run.s directory, .*, nor the folder"):
            main([*DEBUG, "--logdir", str(tmp_path / "runs"), "--init_from", str(place)])
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_whole_run_begins_with_it_once(
    debug_runs: DebugRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = {"logdir": str(tmp_path), "steps": 200, "init_from": str(debug_runs.path)}
    for steps in (200, 240):
        config = load_config("debug", task=DEBUG[1], overrides={**overrides, "steps": steps})
        train(config)
        assert ("initial weights from" in capsys.readouterr().out) == (steps == 200)


def test_the_keys_that_differ_are_named(tmp_path: Path) -> None:
    """As of a checkpoint of v1 for v3, of which nothing fits; and of one for other units."""
    overrides = {"logdir": str(tmp_path), "discount.enabled": False}
    config = load_config("debug", task="small:agent", overrides=overrides)
    with RunDir.open(config) as run:
        Checkpoints(run.checkpoints).save(40, make_agent().state_arrays(), {})
    v3 = {"layers.norm": "rms", "rssm.classes": 4, "rssm.blocks": 4}
    agent = make_agent(**{key.replace(".", "__"): value for key, value in v3.items()})
    with pytest.raises(UserError, match="nothing of .* fits this agent") as caught:
        take_weights(agent, str(run.path), "all", config.replace(v3))
    differing = (
        "keys that differ: layers.norm is none there, rms here, rssm.classes is 0 there, 4 here, "
        "rssm.blocks is 0 there, 4 here"
    )
    assert str(caught.value).endswith(differing) and "\n" not in str(caught.value)
    agent, units = make_agent(actor__units=7), {"actor.units": 7}
    said = take_weights(agent, str(run.path), "all", config.replace(units))
    assert said.endswith("; keys that differ: actor.units is 16 there, 7 here")
    assert "keys that differ" not in take_weights(agent, str(run.path), "all")
