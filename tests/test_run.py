"""Whole runs on DeepMind Control, as a user starts, stops, kills and resumes them."""

import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import whole_runs
from whole_runs import RUN, DebugRuns, contents, finish, metrics_of, python, start, wait_until

from dreamer.data.episodes import EpisodeFile
from dreamer.errors import UserError
from dreamer.run import main
from dreamer.system.tensorflow import has_nvidia
from dreamer.training.schedule import UpdateSchedule

COUNTING = f"{whole_runs.ROOT}/tests/counting_env.py:make"
SCHEDULE = UpdateSchedule(prefill=160, pretrain=2, every=80, updates=2)  # the debug preset's
# What depends on the machine and the hour.
CLOCKS = re.compile(r"wall_time|fps/.*|eval/seconds")


def steady(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if not CLOCKS.fullmatch(key)}


def test_a_run_leaves_what_the_design_says(debug_runs: DebugRuns):
    run = debug_runs.path
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "episodes", "checkpoints", "videos"} <= names
    assert len(list(run.glob("events.*"))) == 1
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == [
        "000000000240", "000000000400",
    ]  # fmt: skip
    assert {path.name for path in (run / "videos").iterdir()} == {
        f"{name}-{step}.gif"
        for name in ("eval_policy", "open_loop_image")
        for step in (160, 240, 400)
    }
    assert not list(run.rglob("*.tmp"))


def test_episodes_are_complete_and_read_back(debug_runs: DebugRuns):
    paths = sorted((debug_runs.path / "episodes").iterdir())
    assert [path.name.split("-")[1:] for path in paths] == [
        [f"s0e{number:08d}", "41.npz"] for number in range(5)
    ]
    episode = EpisodeFile(paths[3]).read()
    assert episode["image"].shape == (41, 64, 64, 3)
    assert episode["image"].dtype == np.uint8 and episode["image"].std() > 10
    assert not episode["action"][0].any() and np.abs(episode["action"][1:]).max() <= 1
    assert episode["reward"][0] == 0 and (episode["reward"][1:] > 0).all()
    assert episode["is_first"].tolist() == [True] + [False] * 40
    assert episode["is_last"].tolist() == [False] * 40 + [True]
    # A time limit is no terminal.
    assert not episode["is_terminal"].any() and (episode["cont"] == 1).all()


def test_steps_agent_steps_and_updates_are_counted_apart_and_exactly(debug_runs: DebugRuns):
    lines = metrics_of(debug_runs.path)
    assert [line["step"] for line in lines] == [160, 240, 320, 400]
    for line in lines:
        assert line["agent_steps"] * 2 == line["step"]
        assert line["updates"] == SCHEDULE.due(line["step"])
        assert line["episodes"] * 80 == line["step"]
        assert line["train/length"] == 80
        assert all(np.isfinite(value) for value in line.values())
    state = whole_runs.state_of(debug_runs.path)
    assert (state["agent_steps"], state["update"], state["next_episode"]) == (200, 8, 5)


def test_an_evaluation_stands_in_the_line_of_its_step(debug_runs: DebugRuns):
    lines = metrics_of(debug_runs.path)
    evaluated = [line["step"] for line in lines if "eval/return" in line]
    assert evaluated == [160, 240, 400]  # the first, the first past 200, the first past 400
    assert ["open_loop/image_error" in line for line in lines] == [True, True, False, True]
    assert all("model/model_loss" in line for line in lines)


def test_one_plain_line_a_step(debug_runs: DebugRuns):
    lines = debug_runs.output.splitlines()
    steps = [line for line in lines if line.startswith("step ")]
    assert [line.split()[1] for line in steps] == ["160/400", "240/400", "320/400", "400/400"]
    assert all("train return" in line and "loss: model" in line for line in steps)
    assert any(line.startswith("environment: ") and "gl " in line for line in lines)
    assert "precision float32" in debug_runs.output
    told = [line.partition(":")[0] for line in lines]  # while tracing takes its time
    assert told.count("building the graph of the update, once") == 1
    assert lines[-1].startswith("done: 400 steps, 8 updates, in ")


def test_same_seed_same_run(debug_runs: DebugRuns):
    """Up to the step at which the shorter one ends, with an evaluation and a checkpoint."""
    ours, theirs = metrics_of(debug_runs.path), metrics_of(debug_runs.other)
    assert [steady(line) for line in ours[:2]] == [steady(line) for line in theirs]
    ours, theirs = (contents(path / "episodes") for path in (debug_runs.path, debug_runs.other))
    by_id = {name.partition("-")[2]: content for name, content in ours.items()}
    assert len(theirs) == 3
    assert all(by_id[name.partition("-")[2]] == theirs[name] for name in theirs)
    arrays = Path("checkpoints", "000000000240", "arrays.npz")
    with np.load(debug_runs.path / arrays) as a, np.load(debug_runs.other / arrays) as b:
        assert a.files == b.files
        assert all(np.array_equal(a[name], b[name]) for name in a.files)


def test_a_script_gets_the_result(debug_runs: DebugRuns):
    path, step, updates, eval_return = debug_runs.script_output.splitlines()[-1].split()
    assert Path(path) == Path("from_script") / RUN
    assert (step, updates) == ("240", str(SCHEDULE.due(240)))
    assert float(eval_return) == metrics_of(debug_runs.path)[1]["eval/return"]


def damage(path: Path) -> None:
    """Flips bytes in the middle of a file."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(255 - byte for byte in content[middle : middle + 64])
    path.write_bytes(content)


@pytest.mark.slow
def test_stop_kill_damage_and_go_on(run: Path, tmp_path: Path):
    """SIGTERM, then kill -9, then a damaged checkpoint and a damaged episode: one long life."""
    # A deterministic run collects anew what came after the checkpoint (tests/faults); this one
    # must keep it.
    words = (*whole_runs.DEBUG[:-1], "false", "--logdir", tmp_path, "--eval.every", "100000")
    longer = (*words, "--steps", "100000")

    process = start("dreamer.run", *longer)
    wait_until(lambda: metrics_of(run)[-1]["step"] >= 560, process)
    process.send_signal(signal.SIGTERM)
    status, output, errors = finish(process)
    assert status == 128 + signal.SIGTERM, errors
    assert "resumed at step 400, update 8" in output
    assert output.splitlines()[-1].startswith("stopped by SIGTERM; the run is saved")
    saved = whole_runs.state_of(run)
    assert saved["agent_steps"] * 2 >= 560
    assert SCHEDULE.due(saved["agent_steps"] * 2 - 80) <= saved["update"]
    assert saved["update"] <= SCHEDULE.due(saved["agent_steps"] * 2)

    process = start("dreamer.run", *longer)
    before = saved["agent_steps"] * 2
    wait_until(lambda: metrics_of(run)[-1]["step"] >= before + 160, process)
    workers = whole_runs.children_of(process)
    process.kill()
    process.communicate()
    assert workers
    wait_until(lambda: all(map(whole_runs.is_gone, workers)))
    # The kill may have come amid a write: what was not yet renamed is no episode.
    kept = {k: v for k, v in contents(run / "episodes").items() if not k.startswith(".")}

    checkpoints = sorted((run / "checkpoints").iterdir())
    damage(checkpoints[-1] / "arrays.npz")
    bad = sorted(kept)[1]
    damage(run / "episodes" / bad)
    last = metrics_of(run)[-1]["step"] + 240
    status, output, errors = finish(start("dreamer.run", *words, "--steps", str(last)))
    assert status == 0, errors
    assert "Traceback" not in output + errors
    assert f"{checkpoints[-1]} is damaged" in output
    assert f"using {checkpoints[-2]} instead" in output
    assert bad in output and "episode set aside" in output
    assert (run / "episodes" / "damaged" / bad).read_bytes() != kept.pop(bad)
    now = contents(run / "episodes")
    assert not any(name.startswith(".") for name in now)
    assert all(now[name] == content for name, content in kept.items())
    assert len(now) > len(kept)

    lines = metrics_of(run)
    steps = [line["step"] for line in lines]
    assert steps == sorted(set(steps)) and steps[-1] >= last
    assert all(line["updates"] == SCHEDULE.due(line["step"]) for line in lines)
    assert "eval/return" in lines[-1] and lines[-1]["damaged_episodes"] == 1
    times = [line["wall_time"] for line in lines]
    assert times == sorted(times)


def test_ctrl_c_before_training_begins(tmp_path: Path):
    process = start("dreamer.run", "--task", COUNTING, "--configs", "debug", "--logdir", tmp_path)
    wait_until(lambda: bool(whole_runs.children_of(process)), process)
    process.send_signal(signal.SIGINT)
    status, output, errors = finish(process)
    assert status == 130
    assert "Traceback" not in errors
    assert "the same command resumes" in output.splitlines()[-1]


def test_ctrl_c_while_a_program_loads_is_quiet(tmp_path: Path):
    """The signal comes when the first module of the program is found, before its main."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'ruamel.yaml':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    for program in ("dreamer.run", "dreamer.evaluate", "baselines.run"):
        path = f"{tmp_path}:{whole_runs.ROOT}"
        done = python("-m", program, "--help", PYTHONPATH=path)
        assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", ""), program


def test_a_python_without_the_packages_says_so(tmp_path: Path):
    done = python("-S", "-m", "dreamer.run")  # without site-packages
    assert done.returncode == 2 and done.stdout == ""
    assert "has no numpy, rich, ruamel: run `source .venv/bin/activate`" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def refused(*words: str | Path, **environ: str) -> str:
    """The one line of a command that must end with exit status 2; `environ` is set for it."""
    done = python("-m", "dreamer.run", *words, **environ)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    return lines[0]


@pytest.mark.parametrize(("words", "message"), [
    ("--task dmx_walker_walk", "task 'dmx_walker_walk'; did you mean 'dmc_walker_walk'?"),
    ("--train.batchsize 3", "did you mean 'train.batch_size'?"),
    ("--configs large", "unknown preset 'large'; there are atari,"),
    ("--configs smal", "unknown preset 'smal'; did you mean 'small'?"),
    ("--configs v3 size10m", "unknown preset 'size10m'; the nearest size is 'size12m'"),
    ("--configs v3 no_value", "value.replay_scale needs behavior.policy actor and"),
    ("--configs v3 size1m --rssm.deter 20", "no multiple of rssm.blocks, 8; choose 24"),
    ("--reward.bins 2", "reward.bins is 2"),
    ("--rssm.classes 1", "rssm.classes is 1, but a choice needs 2 or more"),
    ("--train.batch_size many", "train.batch_size"),
    ("--train.batch_size -1", "train.batch_size"),
    ("--task dmc_walker_wlk --configs dmc_proprio", "did you mean 'dmc_walker_walk'"),
    ("--task dmc_walker_walk --configs dmc_proprio --train.batch_length 502", "at most 501"),
    (f"--task {COUNTING} --envs.time_limit 8 --train.batch_length 6", "at most 5 timesteps"),
    ("--task gym_CartPole-v1 --configs dmc_proprio --train.batch_length 502", "at most 501"),
    ("--task dmc_walker_walk --configs dmc_proprio --train.batch_size 10000 "
     "--train.batch_length 500 --replay.prefetch 1000", "1002 such batches in memory"),
    (f"--task {COUNTING}_it", "no function 'make_it'; did you mean 'make'?"),
])  # fmt: skip
def test_usage_errors_leave_nothing(words: str, message: str, tmp_path: Path):
    with pytest.raises(UserError) as error:
        main([*words.split(), "--logdir", str(tmp_path / "runs")])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_a_usage_error_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    line = refused("--task", COUNTING, "--configs", "debug", "--logdir", tmp_path / "file")
    assert "choose a --logdir you may write to" in line


def test_days_on_a_cpu_are_said_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["--task", "dmc_walker_wlk", "--logdir", str(tmp_path / "runs")]
    for more, said in (["--configs", "small"], False), ([], not has_nvidia()):
        with pytest.raises(UserError, match="did you mean 'dmc_walker_walk'"):
            main([*words, *more])
        printed = capsys.readouterr().out
        assert bool(re.search(r"5,000,000 steps .* about [1-9]\d* days", printed)) == said
    assert not (tmp_path / "runs").exists()


def test_no_opengl(tmp_path: Path):
    words = (*whole_runs.DEBUG, "--logdir", tmp_path)
    nonsense = refused(*words, MUJOCO_GL="nonsense")
    assert "nonsense" in nonsense and "apt-get install" in nonsense
    off = refused(*words, MUJOCO_GL="off")
    assert "MUJOCO_GL=off switches rendering off" in off and "dmc_proprio" in off


@pytest.mark.parametrize(("package", "task", "advice"), [
    ("dm_control", "dmc_walker_walk", "pip install dm_control==1.0.50"),
    ("gymnasium", "gym_CartPole-v1", "pip install gymnasium"),
])  # fmt: skip
def test_a_missing_package(package: str, task: str, advice: str, tmp_path: Path):
    # Found first, and fails as an import does where there is no such package.
    absent = f'raise ModuleNotFoundError("No module named {package!r}", name={package!r})'
    (tmp_path / f"{package}.py").write_text(absent, encoding="utf-8")
    words = ("--task", task, "--configs", "dmc_proprio", "--logdir", tmp_path / "runs")
    assert advice in refused(*words, PYTHONPATH=str(tmp_path))


def test_another_config_is_refused_by_the_keys_that_differ(run: Path, tmp_path: Path):
    before = contents(run)
    words = (*whole_runs.DEBUG, "--logdir", tmp_path, "--steps", "500")
    line = refused(*words, "--rssm.stoch", "5", "--loss.free_nats", "1")
    assert "rssm.stoch is 4, now 5 (the weights" in line
    assert "loss.free_nats is 3.0, now 1.0" in line
    assert "steps" not in line.replace("updates per train.every steps", "")
    assert contents(run) == before


def test_help_loads_no_tensorflow():
    code = (
        "import sys; import dreamer.run, dreamer.evaluate\n"
        "for module in (dreamer.run, dreamer.evaluate):\n"
        "    try: module.main(['--help'])\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "print(*sorted({'tensorflow', 'keras', 'mujoco', 'dm_control'} & set(sys.modules)))"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "--train.batch_size" in done.stdout and "--checkpoint" in done.stdout
    assert done.stdout.splitlines()[-1] == ""
