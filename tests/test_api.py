"""The Python API: its names, and the worked example of training on one's own environment."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from whole_runs import ROOT, DebugRuns, metrics_of, python

import dreamer
from dreamer.data.episodes import EpisodeFile
from dreamer.evaluate import evaluate
from dreamer.training.collector import episode_seed
from dreamer.training.reports import EVAL_SEED_OFFSET

EXAMPLE = ROOT / "examples" / "own_env.py"


def test_public_names_load_on_first_use():
    code = (
        "import sys, dreamer; from dreamer import Config, UserError, load_config, make_env, train\n"
        "print('tensorflow' in sys.modules, load_config('debug').steps)\n"
        "env = make_env('tests/counting_env.py:make'); print(env.reset(seed=1)['is_first'])\n"
        "print('tensorflow' in sys.modules)"
    )
    done = python("-c", code)
    assert done.stdout.split("\n")[:3] == ["False 400", "True", "False"], done.stderr


def test_every_public_name_is_there_and_no_other():
    assert dir(dreamer) == sorted(dreamer.__all__)
    for name in dreamer.__all__:
        assert getattr(dreamer, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'Agents'"):
        _ = dreamer.Agents


def test_an_agent_acts_and_learns_from_the_api_alone():
    config = dreamer.load_config("debug", overrides={"jit": "off", "precision": "float32"})
    env = dreamer.make_env(f"{EXAMPLE}:Reach")
    agent = dreamer.make_agent(config, env.obs_space, env.act_space)
    timestep, state, timesteps = env.reset(seed=3), None, []
    for _ in range(6):
        batched = {key: np.asarray(value)[None] for key, value in timestep.items()}
        actions, state = agent.policy(batched, state)
        timestep = {**env.step(actions[0]), "action": actions[0]}
        timesteps.append(timestep)
    batch = {key: np.stack([r[key] for r in timesteps])[None] for key in timesteps[0]}
    metrics = agent.train_step(batch, 0)
    assert np.isfinite(float(metrics["model_loss"]))
    env.close()


@pytest.mark.slow
def test_the_worked_example_trains(tmp_path: Path):
    shutil.copy(EXAMPLE, tmp_path)
    done = python("own_env.py", "debug", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "own_env.py_Reach" / "dreamer_debug" / "0"
    lines = metrics_of(run)
    assert (lines[-1]["step"], lines[-1]["updates"]) == (400, 8)
    episode = EpisodeFile(next((run / "episodes").iterdir())).read()
    # The dot is there, whole, and each action moves it by at most a tenth of the way to the side.
    assert (episode["image"].sum(axis=(1, 2, 3)) == 8 * 8 * 3 * 255).all()
    corners = np.array([np.argwhere(image[..., 0])[0] for image in episode["image"]])
    expected = np.clip(corners[:-1] + 2.8 * episode["action"][1:], 0, 56)
    assert np.abs(corners[1:] - expected).max() <= 1
    assert "eval return" in done.stdout


def test_the_documented_loop_acts_with_a_trained_agent(
    debug_runs: DebugRuns, capsys: pytest.CaptureFixture[str]
):
    page = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    code = code.replace("runs/dmc_walker_walk/dreamer/0", str(debug_runs.path))
    exec(code, {"__name__": "__main__"})
    printed = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"return \d+\.\d after 400 steps of training", printed)


def test_a_loaded_run_acts_as_its_evaluation_does(debug_runs: DebugRuns):
    evaluated = evaluate(debug_runs.path, episodes=1).evaluation.returns
    with dreamer.load_run(debug_runs.path) as run:
        seed = episode_seed(run.config.seed + EVAL_SEED_OFFSET, 0)
        timesteps, state, total = run.envs.reset([seed]), None, np.float32(0.0)
        while not timesteps[0]["is_last"]:
            batch = {key: value[None] for key, value in timesteps[0].items()}
            actions, state = run.agent.policy(batch, state, mode="eval")
            timesteps = run.envs.step(actions)
            total += timesteps[0]["reward"]
    assert [float(total)] == pytest.approx(evaluated, rel=1e-6)
    with pytest.raises(RuntimeError, match="closed"):
        run.envs.reset([seed])


def test_the_example_fits_in_20_lines_besides_documentation_and_is_in_the_readme():
    text = EXAMPLE.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip()]
    assert len([line for line in lines if not line.strip().startswith(('"""', "#"))]) <= 20
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.partition("import sys")[2].strip() in readme
