"""From a sweep's command line to its trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamer.config.command_line import CommandLine
from dreamer.errors import UserError
from dreamer.run import __name__ as run_module
from dreamer.sweep import LINE
from dreamer.sweeps.plan import Trial, plan
from dreamer.tasks import TASK_LISTS


def planned(words: str) -> list[Trial]:
    return plan(LINE.parse(words.split()))


def test_a_suite_by_seeds_seeds_outermost(tmp_path: Path):
    trials = planned(f"--suite dmc20 --seeds 3 --logdir {tmp_path}")
    assert [trial.name for trial in trials] == [
        f"{task}/dreamer/{seed}" for seed in range(3) for task in TASK_LISTS["dmc20"]
    ]
    assert trials[0].path == tmp_path / "dmc_acrobot_swingup" / "dreamer" / "0"
    assert trials[0].config.steps == 5_000_000 and trials[0].config.envs.action_repeat == 2
    (trial,) = planned("--task dmc_walker_walk --log.terminal live")  # the sweep's, not the run's
    assert trial.config.log.terminal == "auto"


def test_presets_are_alternatives_and_plus_combines_them():
    trials = planned("--tasks dmc_walker_walk --configs small debug small+states --seed 7")
    assert [trial.name.split("/")[1:] for trial in trials] == [
        ["dreamer_small", "7"], ["dreamer_debug", "7"], ["dreamer_small_states", "7"],
    ]  # fmt: skip
    assert trials[2].words[:4] == ("dreamer.run", "--configs", "small", "states")


def test_a_grid_combines_values_and_names_methods_by_them():
    trials = planned(
        "--task dmc_walker_walk --grid behavior.horizon=5,10 loss.kl_scale=0.1,1 discount.enabled"
        "=true"
    )
    assert [trial.name.split("/")[1] for trial in trials] == [
        f"dreamer_horizon={h}_kl_scale={k}_enabled=true"
        for h in (5, 10) for k in (0.1, 1.0)
    ]  # fmt: skip
    assert trials[3].config.behavior.horizon == 10 and trials[3].config.loss.kl_scale == 1
    (trial,) = planned("--task dmc_walker_walk --grid value.units=20 reward.units=30")
    assert trial.path.parts[-2] == "dreamer_value.units=20_reward.units=30"


@pytest.mark.parametrize(
    "words",
    [
        "--suite dmc6 --seeds 2 --configs small",
        "--tasks dmc_walker_walk --grid optimizer.model_lr=6e-4,0.00012345678901 --steps 1e5",
        "--tasks gym_CartPole-v1 --method mine --train.batch_size 7 --envs.image false "
        "--envs.state true --encoder.keys=.*",
    ],
)
def test_the_words_of_a_trial_give_its_config(words: str):
    """What is started is what was planned: same values, same directory."""
    for trial in planned(words):
        program, *rest = trial.words
        assert program == run_module
        config = CommandLine(program, "").parse(rest).config()
        assert config == trial.config and config.presets == trial.config.presets


def test_a_compared_agent():
    (trial,) = planned("--task dmc_walker_walk --agent d4pg --configs small --seed 2")
    assert trial.words[:3] == ("baselines.run", "--agent", "d4pg")
    assert trial.path.parts[-3:] == ("dmc_walker_walk", "d4pg_small", "2")
    # Keys, presets and the method's name are that agent's own.
    assert not any(word.startswith("--method") for word in trial.words)
    assert trial.config.agent == "d4pg" and trial.config.train.batch_size == 64
    words = "--task dmc_walker_walk --agent d4pg --grid d4pg.n_step=1,5"
    assert [t.path.parts[-2] for t in planned(words)] == ["d4pg_n_step=1", "d4pg_n_step=5"]
    with pytest.raises(UserError, match="'rssm.stoch' is no key of .* have it: dreamer"):
        planned("--task dmc_walker_walk --agent d4pg --rssm.stoch 3")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--suite dmc21", "unknown suite 'dmc21'; did you mean 'dmc20'?"),
        ("--seeds 2", "expected one of --suite NAME"),
        ("--suite dmc20 --tasks dmc_walker_walk", "expected one of --suite NAME"),
        ("--tasks dmx_walker_walk", "did you mean 'dmc_walker_walk'?"),
        ("--task dmc_walker_walk --grid behavior.horizom=5", "did you mean 'behavior.horizon'?"),
        ("--task dmc_walker_walk --grid behavior.horizon=5,x", "must be a whole number"),
        ("--task dmc_walker_walk --grid behavior.horizon=5,5", "has a value twice"),
        ("--task dmc_walker_walk --grid behavior.horizon", "expected key=value,value"),
        ("--task dmc_walker_walk --grid seed=1,2", "cannot vary seed"),
        ("--task dmc_walker_walk --behavior.horizon 4 --grid behavior.horizon=5", "given twice"),
        ("--task dmc_walker_walk --method mine --configs small debug", "would share"),
    ],
)
def test_mistakes(words: str, message: str):
    with pytest.raises(UserError) as caught:
        planned(words)
    assert message in str(caught.value)
