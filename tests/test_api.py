"""The Python API: its names, and the worked example of training on one's own environment."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from whole_runs import ROOT, DebugRuns, metrics_of, python

import dreamer
from dreamer.data.episodes import EpisodeFile
from dreamer.errors import ContractError, UserError
from dreamer.evaluate import evaluate
from dreamer.training.collector import episode_seed
from dreamer.training.reports import EVAL_SEED_OFFSET

PAGE = "docs/python-api.md"
EXAMPLE, NOTEBOOK = (ROOT / "examples" / name for name in ("own_env.py", "tutorial.ipynb"))


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


def test_an_environment_that_renders_comes_before_or_after_an_agent():
    """In one process a software OpenGL and TensorFlow crash; the second script asks for that."""
    script = (
        "from dreamer import load_config, make_agent, make_env\n"
        "{}env = make_env('dmc_cartpole_balance', shadow_size=64); env.reset(seed=1)\n"
        "agent = make_agent(load_config('debug', 'tiny'), env.obs_space, env.act_space)\n"
        "print(env.step(agent.policy({{k: v[None] for k, v in env.reset().items()}}, None)[0][0])"
        "['image'].shape)"
    )
    done = python("-c", script.format(""))
    assert done.stdout.splitlines() == ["(64, 64, 3)"], done.stderr
    done = python("-c", script.format("from dreamer.envs.make import make_env\n"))
    if "llvmpipe" in done.stdout or done.returncode:  # a GPU may render beside TensorFlow
        assert "UserError: TensorFlow cannot share a process" in done.stderr


def test_mistakes_with_an_environment_are_named_before_it_fails():
    with pytest.raises(UserError, match="no setting 'imagesize'; did you mean 'image_size'"):
        dreamer.make_env("dmc_cartpole_balance", imagesize=32)
    with pytest.raises(UserError, match="an environment has one: use an EnvPool"):
        dreamer.make_env("dmc_walker_walk,dmc_walker_run")
    with dreamer.make_env("tests/counting_env.py:make") as env:
        with pytest.raises(RuntimeError, match="call reset"):
            env.step(env.act_space.sample(np.random.default_rng(0)))
        env.reset(seed=1)
        with pytest.raises(ContractError, match="action: expected shape"):
            env.step(0)
        assert not env.step(env.act_space.sample(np.random.default_rng(0)))["is_first"]


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
    pages = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", PAGE)]
    code, again = (re.findall(r"```python\n(import dreamer\n.*?)```", p, re.S)[0] for p in pages)
    assert code == again and len(code.splitlines()) <= 10
    exec(re.sub(r"load\(.*?\)", f"load({str(debug_runs.path)!r})", code))
    printed = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"return \d+\.\d after 400 steps of training", printed)


def test_a_loaded_agent_acts_as_in_its_evaluation(debug_runs: DebugRuns):
    evaluated = evaluate(debug_runs.path, episodes=2).evaluation.returns
    agent, env = dreamer.load(debug_runs.path)
    with env:
        for number, expected in enumerate(evaluated):
            seed = episode_seed(agent.config.seed + EVAL_SEED_OFFSET, number)
            timestep, total = env.reset(seed), np.float32(0.0)
            while not timestep["is_last"]:
                timestep = env.step(agent.act(timestep))
                total += timestep["reward"]
            assert float(total) == pytest.approx(expected, rel=1e-6)
        with pytest.raises(RuntimeError, match="call reset"):
            env.step(np.zeros(1))
        # A robot's observations have no flags: an episode begins after agent.reset().
        seen = {"image": env.reset(seed)["image"]}
        agent.reset()
        calls = agent.agent.policy_calls
        first = agent.act(seen)
        second, agent.agent.policy_calls = agent.act(seen), calls
        agent.reset()
        assert (agent.act(seen) == first).all() and (second != first).any()
        assert (agent.act(seen, explore=True) != second).any()
        for mistaken, message in (
            ({"frame": seen["image"]}, "lacks 'image', uint8 .64, 64, 3.; it has frame"),
            ({"image": seen["image"] / 255}, "image: expected dtype uint8, got float64"),
            ({"image": seen["image"][:32]}, r"image: expected shape \(64, 64, 3\)"),
        ):
            with pytest.raises(ContractError, match=message):
                agent.act(mistaken)
    with pytest.raises(RuntimeError, match="closed"):
        env.reset()


def test_several_environments_of_a_run_end_with_their_block(debug_runs: DebugRuns):
    with dreamer.load_run(debug_runs.path, num_envs=2) as run:
        timesteps = run.envs.reset([1, 2])
    assert len(timesteps) == 2
    with pytest.raises(RuntimeError, match="closed"):
        run.envs.reset([1, 2])


def test_the_example_fits_in_20_lines_besides_documentation_and_is_in_the_readme():
    text = EXAMPLE.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip()]
    assert len([line for line in lines if not line.strip().startswith(('"""', "#"))]) <= 20
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.partition("import sys")[2].strip() in readme


def notebook_code() -> str:
    """The code cells of the tutorial, one after the other."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4 and not any(cell.get("outputs") for cell in notebook["cells"])
    cells = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return "\n".join("".join(source) for source in cells)


def test_the_tutorial_is_python_of_public_names():
    """Without a magic command, so that any editor, and the next test, can run it."""
    names = set(re.findall(r"dreamer\.(\w+)", notebook_code()))
    compile(notebook_code(), str(NOTEBOOK), "exec")
    assert names >= {"make_env", "load_config", "train", "load", "Callback"}
    assert names <= set(dreamer.__all__)


@pytest.mark.slow
def test_the_tutorial_runs_from_its_first_cell_to_its_last(tmp_path: Path):
    shutil.copy(EXAMPLE, tmp_path)
    done = python("-c", notebook_code(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "step 400, 8 updates: " in done.stdout
    assert re.search(r"return \d+\.\d after 400 steps of training\n$", done.stdout)
