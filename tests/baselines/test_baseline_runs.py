"""Whole runs of the agents on a quick task, and of one from a folder outside the package."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from whole_runs import metrics_of, state_of

from baselines import evaluate, registry
from baselines.run import main, train
from dreamer import evaluate as dreamer_evaluate
from dreamer.config import schema
from dreamer.config.config import Config, load_config
from dreamer.errors import UserError
from dreamer.run import Result
from dreamer.runs.rundir import run_path
from dreamer.training.schedule import UpdateSchedule
from dreamer.training.trainer import Trainer

HERE = Path(__file__).resolve().parent
TASKS = HERE / "reach_env.py"
QUICK = {
    "steps": 120, "eval.every": 50, "eval.episodes": 2, "eval.videos": 0, "log.every": 20,
    "log.terminal": "plain", "log.tensorboard": False, "checkpoint.every": 40,
    "envs.time_limit": 0,
}  # fmt: skip
TRAINED = {"train.prefill": 30, "train.every": 20, "train.updates": 7}
SCHEDULE = UpdateSchedule(prefill=30, pretrain=2, every=20, updates=7)


def config_for(agent: str, logdir: Path, maker: str = "continuous", **values) -> Config:
    learns = agent in ("d4pg", "dqn")
    presets = ["debug"] if learns or agent == "random" else []
    schedule = TRAINED if learns else {"train.prefill": 1} if agent == "random" else {}
    overrides = {**QUICK, **schedule, "logdir": str(logdir), **values}
    task = f"{TASKS}:{maker}"
    return load_config(*presets, task=task, overrides=overrides, agent=agent)


def look_first(held: list[int]) -> Callable[[Trainer], None]:
    """A trainer's `run` that first takes note of the size of the agent's memory, if it has one."""
    run = Trainer.run

    def looking(trainer: Trainer) -> None:
        held.extend(len(memory) for memory in [getattr(trainer.agent, "memory", None)] if memory)
        run(trainer)

    return looking


@pytest.mark.parametrize(
    ("agent", "maker"),
    [("random", "continuous"), ("constant", "discrete"), ("d4pg", "continuous"),
     pytest.param("dqn", "discrete", marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_run_is_counted_resumed_and_evaluated_like_dreamers(
    agent: str, maker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = config_for(agent, tmp_path, maker)
    result = train(config)
    assert isinstance(result, Result) and result.step == 120
    learns = agent in ("d4pg", "dqn")
    assert result.path.parent.name == (agent if agent == "constant" else f"{agent}_debug")
    # The preset debug is Dreamer's, and the random policy has few of its keys.
    left_out = "the agent random lacks some keys of the presets, which are left out: train.batch"
    assert (left_out in capsys.readouterr().out) == (agent == "random")
    lines = metrics_of(result.path)
    due = SCHEDULE.due if learns else lambda step: 0
    assert all(line["updates"] == due(line["step"]) for line in lines)
    assert result.eval_return == lines[-1]["eval/return"] and "train/return" in lines[-1]
    assert len(list((result.path / "episodes").iterdir())) == 12
    held: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "run", look_first(held))
        again = train(config.replace({"steps": 160}))
    assert held == [12 * 11] * learns  # episodes of ten steps came back into the memory
    assert again.step == 160 and again.updates == due(160)
    assert "resumed at step 120" in capsys.readouterr().out
    assert state_of(again.path)["agent_steps"] == 160
    words = ["--run", str(again.path), "--episodes", "2", "--task", config.task]
    assert evaluate.main(words) == 0
    assert "over 2 episodes" in capsys.readouterr().out
    with pytest.raises(UserError, match=f"of the agent {agent}.*baselines.evaluate"):
        dreamer_evaluate.evaluate(again.path, episodes=1, task=config.task)


def test_one_agents_run_is_not_another_ones(tmp_path: Path):
    values = {"method": "mine", "steps": 20}
    train(config_for("random", tmp_path, **values))
    with pytest.raises(UserError, match="made by the agent random, not constant"):
        train(config_for("constant", tmp_path, **values))


def test_random_and_constant_act_as_their_names_say():
    timesteps = {"is_first": np.ones(200, bool)}
    space = load_space("continuous")
    random = registry.make_agent(load_config(agent="random"), {}, space)
    actions = random.policy(timesteps, None)[0]
    assert actions.shape == (200, 1) and actions.dtype == np.float32
    assert abs(actions.mean()) < 0.15 and actions.std() > 0.5
    config = load_config(agent="constant", overrides={"constant.action": 0.25})
    constant = registry.make_agent(config, {}, space)
    assert (constant.policy(timesteps, None)[0] == 0.25).all()
    with pytest.raises(UserError, match="actions of this task are 0 to 2"):
        registry.make_agent(config, {}, load_space("discrete"))


def load_space(maker: str):
    sys.path.insert(0, str(HERE))
    import reach_env

    return getattr(reach_env, maker)().act_space


def test_keys_belong_to_agents(tmp_path: Path):
    d4pg = load_config(agent="d4pg", task="dmc_walker_walk")
    assert d4pg.d4pg.n_step == 5 and d4pg.train.batch_size == 256
    assert run_path(d4pg).parts[-2] == "d4pg"
    with pytest.raises(UserError, match="'d4pg.n_step' is no key of .*; these have it: d4pg$"):
        load_config(overrides={"d4pg.n_step": 3})
    with pytest.raises(UserError, match="'rssm.stoch' is no key of .* have it: dreamer, "):
        load_config(agent="d4pg", overrides={"rssm.stoch": 3})
    with pytest.raises(UserError, match="unknown agent 'd5pg'; did you mean 'd4pg'"):
        load_config(agent="d5pg")
    assert load_config("states", agent="d4pg").d4pg.group == 50
    assert d4pg.replace({"seed": 1}).agent == "d4pg" and d4pg != load_config(agent="random")


@pytest.mark.parametrize(
    ("agent", "values"),
    [("d4pg", {"d4pg.alpha": 0.6}), ("dqn", {"dqn.alpha": 0.6}), ("a3c", {})],
)
def test_what_cannot_be_repeated_is_refused_as_deterministic(
    agent: str, values: dict[str, float], tmp_path: Path
):
    config = config_for(agent, tmp_path, deterministic=True, **values)
    with pytest.raises(UserError, match="deterministic is true, but .* to false$"):
        train(config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("agent", ["d4pg", "dqn", "planet"])
def test_exploration_is_the_agents_own_on_every_suite(agent: str):
    """A suite's preset changes none of its keys: half a schedule of each would be neither's."""
    tasks = ("atari_pong", "dmlab_collect", "gym_CartPole-v1")
    own = load_config(agent=agent, task="dmc_walker_walk").section("explore")
    for task in tasks:
        assert load_config(agent=agent, task=task).section("explore") == own, task


@pytest.mark.parametrize("agent", registry.AGENTS)
def test_every_preset_of_an_agent_loads(agent: str):
    config = load_config(agent=agent, task="dmc_cartpole_balance")
    assert config.agent == agent
    root = HERE.parent.parent / "configs/presets" / agent
    for path in root.glob("*.yaml"):
        assert load_config(path.stem, agent=agent).presets == (path.stem,)


def test_the_command_line_names_what_is_wrong(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(UserError, match="--agent is missing: expected one of .*d4pg"):
        main(["--task", "dmc_walker_walk"])
    with pytest.raises(UserError, match="one of a3c.*, not 'd4gp'; did you mean 'd4pg'"):
        main(["--agent", "d4gp"])
    with pytest.raises(UserError, match="--agent is given twice"):
        main(["--agent", "d4pg", "--agent=dqn"])
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "d4pg" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--agent=d4pg", "--help"])
    assert "--d4pg.v_max" in capsys.readouterr().out


# The three files of an agent: its module, its keys, and its entry in the registry.
MODULE = "from numpy_agent import NumpyAgent as make\n"
KEYS = """
without: [agent]
train:
  batch_size: {value: 4, source: ours}
  batch_length: {value: 5, source: ours}
  prefill: {value: 30, source: ours}
  every: {value: 20, unit: steps, help: Steps in a round., source: ours}
  updates: {value: 7, unit: updates, help: Updates in a round., source: ours}
log:
  video_every: {value: 0, source: ours}
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, added_configs: None) -> None:
    """A folder with an agent `mean`, and its entry in the registry."""
    (tmp_path / "mean_agent.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "configs" / "agents").mkdir(parents=True)
    (tmp_path / "configs" / "agents" / "mean.yaml").write_text(KEYS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "AGENTS", dict(registry.AGENTS))
    registry.register("mean", registry.Entry("mean_agent:make"), tmp_path / "configs")


def test_an_agent_from_outside_trains_and_resumes(
    outside: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    flags = {**QUICK, "logdir": tmp_path / "runs", "task": f"{TASKS}:continuous"}
    for steps in (120, 160):
        flags["steps"] = steps
        words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
        assert main(["--agent", "mean", *words]) == 0
    assert "resumed at step 120" in capsys.readouterr().out
    (run,) = tmp_path.glob("runs/*/mean/0")
    lines = metrics_of(run)
    assert (lines[-1]["step"], lines[-1]["updates"]) == (160, (160 - 30) * 7 // 20)
    assert all("model/error" in line for line in lines if line["step"] > 30)


def test_every_agent_with_keys_has_an_entry():
    assert list(registry.AGENTS) == schema.agent_names()[1:]
    for name in ("d4pg", "dqn", "a3c", "random"):
        assert callable(pkgutil.resolve_name(registry.AGENTS[name].agent))
        assert (registry.experience_of(name) is None) == (name == "random")
