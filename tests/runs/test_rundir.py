"""Run directories: their places, their locks, and their config.yaml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from ordinary_user import ordinary_user

from dreamer.config.config import Config, load_config
from dreamer.errors import UserError
from dreamer.io.yaml_files import read_yaml
from dreamer.runs.checkpoints import Checkpoints
from dreamer.runs.rundir import RunDir, method_name, run_path

TASK = "dmc_cartpole_balance"


@pytest.fixture
def config(tmp_path) -> Config:
    return load_config("small", task=TASK, overrides={"logdir": str(tmp_path), "seed": 3})


def test_path_names_task_method_and_seed(tmp_path, config):
    assert run_path(config) == tmp_path / TASK / "dreamer_small" / "3"
    assert method_name(load_config(task=TASK)) == "dreamer"
    assert method_name(load_config("small", "debug", task=TASK)) == "dreamer_debug_small"
    assert method_name(load_config(overrides={"method": "dreamer_x=5"})) == "dreamer_x=5"


@pytest.mark.parametrize("method", ["../up", "a/b", ".hidden", "a b"])
def test_a_method_that_is_no_folders_name_is_refused(config, method):
    with pytest.raises(UserError, match="names a folder"):
        run_path(config.replace({"method": method}))


def test_a_tasks_path_stays_one_folder_below_the_logdir(tmp_path, config):
    path = run_path(config.replace({"task": "../my/env.py:make"}))
    assert path == tmp_path / "my_env.py_make" / "dreamer_small" / "3"


def test_a_new_run_has_its_folders_and_says_what_made_it(tmp_path, config):
    with RunDir.open(config) as run:
        assert not run.resumed and run.path == run_path(config)
        assert run.episodes.is_dir() and run.checkpoints.is_dir() and run.videos.is_dir()
        assert run.metrics == run.path / "metrics.jsonl" and not run.metrics.exists()
        record = read_yaml(run.config_file)
    assert record["config"] == config.tree()
    assert record["presets"] == ["small"] and record["seed"] == 3
    assert record["versions"]["numpy"] == numpy.__version__
    assert record["versions"]["python"].startswith("3.")
    packages = ("tensorflow", "tensorflow-probability", "keras", "dm_control", "mujoco")
    assert set(record["versions"]) >= {*packages, "gymnasium", "dreamer"}
    git = ["git", "-C", Path(__file__).parent, "rev-parse", "HEAD"]
    head = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    assert record["commit"].removesuffix("-modified") == head


def test_the_same_command_resumes_and_what_may_differ_is_noted(config):
    RunDir.open(config).close()
    values = {"steps": 300_000, "eval.episodes": 3, "log.tensorboard": False, "envs.timeout": 9.0}
    changed = config.replace(values)
    with RunDir.open(changed) as run:
        assert run.resumed
        record = read_yaml(run.config_file)
    assert record["config"]["steps"] == 300_000
    (resumed,) = record["resumed"]
    assert resumed["config"] == values and resumed["versions"] == {}
    loaded, its_config = RunDir.load(run.path)
    assert its_config == changed and its_config.presets == ("small",)
    assert loaded.path == run.path


LEFT_BY_A_RUN = ("metrics.jsonl", "episodes/3-0.npz", "eval_episodes/a", "checkpoints/20/file")


@pytest.mark.parametrize("left", LEFT_BY_A_RUN)
def test_another_config_is_refused_with_each_key_and_both_values(config, left):
    with RunDir.open(config) as run:
        (run.path / left).parent.mkdir(parents=True, exist_ok=True)
        (run.path / left).write_text("{}")
    before = read_yaml(run_path(config) / "config.yaml")
    other = config.replace({"loss.kl_scale": 7.0, "behavior.horizon": 5, "steps": 90_000})
    with pytest.raises(UserError) as caught:
        RunDir.open(other)
    message = str(caught.value)
    assert f"loss.kl_scale is {config.loss.kl_scale!r}, now 7.0" in message
    assert f"--init_from {run.path}" in message
    assert "behavior.horizon is 15, now 5 (it decides what is learnt" in message
    assert "steps" not in message.replace("runs", "")
    assert read_yaml(run_path(config) / "config.yaml") == before
    RunDir.open(config).close()


def test_what_stays_sound_may_change_and_is_written_down_with_its_step(config):
    with RunDir.open(config) as run:
        Checkpoints(run.checkpoints).save(10, {}, {"members": []})
    values = {
        "optimizer.model_lr": 1e-3, "train.updates": 9, "envs.num_envs": 3, "explore.kind": "none",
        "train.batch_size": 7, "replay.sampling": "timesteps",
        "optimizer.weight_decay": 1e-6, "actor.entropy_final": 1e-3, "log.every": 5,
    }  # fmt: skip
    for _ in range(2):
        with RunDir.open(config.replace(values)) as run:
            (entry, *later) = read_yaml(run.config_file)["resumed"]
    assert (entry["config"], entry["step"]) == (values, 10)
    assert entry["before"] == {key: config.flat()[key] for key in values if key != "log.every"}
    assert [again["config"] for again in later] == [{}] and not run.notes
    with RunDir.open(config) as run:
        before = config.optimizer.model_lr
        assert "changed from step 10 on: envs.num_envs 3 -> 1" in run.notes[0]
        assert f"optimizer.model_lr 0.001 -> {before}" in run.notes[0]


@pytest.mark.parametrize(("values", "reason"), [
    ({"envs.num_envs": 3, "deterministic": True}, "a deterministic run"),
    ({"task": "dmc_cartpole_balance_sparse"}, ""),
    ({"envs.action_repeat": 4}, "the episodes so far are of that environment"),
    ({"encoder.mlp_units": 4}, "the weights so far have that form"),
    ({"actor.layers": 1}, "the weights so far have that form"),
    ({"layers.norm": "rms"}, "the weights so far have that form"),
    ({"optimizer.algorithm": "laprop"}, "the weights so far have that form"),
    ({"optimizer.shared": True}, "the weights so far have that form"),
    ({"train.prefill": 9}, "when the run began"),
    ({"behavior.gamma": 0.5}, "it decides what is learnt"),
])  # fmt: skip
def test_what_cannot_change_is_refused_with_the_reason(config, values, reason):
    with RunDir.open(config) as run:
        run.metrics.write_text("{}")
    if not reason:  # another task is another run
        with RunDir.open(config.replace(values)) as run:
            assert not run.resumed
        return
    with pytest.raises(UserError, match=f"{next(iter(values))} is .*{reason}"):
        RunDir.open(config.replace(values))


def test_a_run_that_collected_nothing_begins_anew_as_configured(config):
    """A mistake that shows only after the start can be corrected, with the same directory."""
    with RunDir.open(config) as run:
        run.metrics.touch()
        first = read_yaml(run.config_file)
    other = config.replace({"rssm.stoch": 7})
    with RunDir.open(other) as run:
        assert not run.resumed
        assert run.notes == ["a run that had collected nothing yet begins anew, as configured now"]
        record = read_yaml(run.config_file)
    assert record["config"] == other.tree() and record["resumed"] == []
    assert record["id"] != first["id"]


def test_a_path_that_is_no_run_gets_the_runs_near_it(tmp_path, config, monkeypatch):
    runs = []
    for seed, task in enumerate(("dmc_walker_walk", "dmc_walker_walk", "dmc_cup_catch")):
        with RunDir.open(config.replace({"seed": seed, "task": task})) as run:
            os.utime(run.config_file, (seed, seed))
            runs.append(run.path.relative_to(tmp_path))
    walk = runs[0].parent.parent
    monkeypatch.chdir(tmp_path)
    for given, near in {
        walk / "missing" / "0": runs[1::-1],
        runs[0].parents[2]: runs[::-1],
        Path("runz") / runs[0]: runs[::-1],
        runs[0] / "checkpoints" / "000000000400": runs[:1],
        runs[0] / "config.yaml": runs[:1],
    }.items():
        with pytest.raises(UserError) as error:
            RunDir.load(given)
        assert str(error.value).endswith(f"newest first: {', '.join(map(str, near))}")
    with pytest.raises(UserError, match="near it, newest first: none"):
        RunDir.load("/nowhere/at/all")


def test_two_live_runs_are_refused_and_a_refused_one_leaves_the_lock_alone(config):
    with RunDir.open(config) as run:
        for _ in range(2):
            with pytest.raises(UserError, match=f"another run works in .*process {os.getpid()}"):
                RunDir.open(config)
        assert RunDir.load(run.path)[1] == config  # reading takes no lock
    RunDir.open(config).close()


DIE = """
import os, sys
from dreamer.config.config import load_config
from dreamer.runs.rundir import RunDir
config = load_config("small", task=sys.argv[1], overrides={"logdir": sys.argv[2], "seed": 3})
run = RunDir.open(config)
(run.path / ".config.yaml.0badcafe.tmp").write_text("half")
assert not any(name.split(".")[0] == "tensorflow" for name in sys.modules)
os.kill(os.getpid(), 9)
"""


def test_a_killed_runs_directory_is_taken_over_and_said(tmp_path, config):
    done = subprocess.run([sys.executable, "-c", DIE, TASK, str(tmp_path)], check=False)
    assert done.returncode == -9
    with RunDir.open(config) as run:
        assert run.resumed
        assert "took over the lock of a dead run (process" in run.notes[0]
        assert not list(run.path.glob(".*.tmp"))


def test_the_replays_directory_may_lie_elsewhere(tmp_path, config):
    elsewhere = tmp_path / "big disk" / "episodes"
    with RunDir.open(config.replace({"replay.directory": str(elsewhere)})) as run:
        assert run.episodes == elsewhere and elsewhere.is_dir()
    assert RunDir.load(run.path)[0].episodes == elsewhere
    config = config.replace({"seed": 4})
    path = run_path(config)
    for _ in range(2):
        with RunDir.open(config.replace({"replay.directory": str(path)})) as run:
            assert (run.episodes, run.others) == (path / "episodes", ())


def test_an_older_run_keeps_the_start_of_its_ids(tmp_path, config):
    config = config.replace({"replay.directory": str(tmp_path / "shared")})
    with RunDir.open(config) as run:
        owner = run.owner
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace("shares_episodes: true\n", ""))
    for _ in range(2):
        with RunDir.open(config) as run:
            assert run.resumed and run.owner == owner != ""


def test_an_existing_runs_episodes_may_move_with_their_files(tmp_path, config):
    name = "20260101T000000-s3e00000000-9.npz"
    other = "20260101T000001-s3e00000000-9.npz"  # of a run of the same seed
    big = config.replace({"replay.directory": str(tmp_path / "big")})
    with RunDir.open(config) as run:
        (run.episodes / name).write_bytes(b"an episode")
        Checkpoints(run.checkpoints).save(10, {}, {"members": [name]})
    with pytest.raises(UserError, match=f"{name}.*move them there first"):
        RunDir.open(big)
    (tmp_path / "big").mkdir()
    (run.episodes / name).rename(tmp_path / "big" / other)
    with pytest.raises(UserError, match=f"{name}.*move them there first"):
        RunDir.open(big)
    (tmp_path / "big" / other).rename(tmp_path / "big" / name)
    for _ in range(2):
        with RunDir.open(big) as moved:
            assert (moved.episodes, moved.owner) == (tmp_path / "big", "")
    with pytest.raises(UserError, match="or set --replay.directory to where they are"):
        RunDir.open(config)


def test_a_run_whose_sources_are_gone_keeps_its_own_episodes(tmp_path, config):
    with RunDir.open(config) as source:
        pass
    reading = config.replace({"seed": 4, "replay.directory": str(source.path)})
    with RunDir.open(reading) as run:
        assert run.others == (source.episodes,)
        (run.episodes / f"20260101T000000-{run.owner}s4e00000000-9.npz").write_bytes(b"an episode")
    shutil.rmtree(source.path)
    with pytest.raises(UserError, match="set --replay.directory to where they are"):
        RunDir.open(reading)
    with RunDir.open(reading.replace({"replay.directory": ""})) as again:
        assert again.episodes == run.episodes and again.owner == run.owner


def test_foreign_directories_are_refused(tmp_path, config):
    path = run_path(config)
    path.mkdir(parents=True)
    (path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"metrics.jsonl but no config.yaml"):
        RunDir.open(config)
    with pytest.raises(UserError, match="not a run's directory"):
        RunDir.load(path)
    (path / "config.yaml").write_text("batch: 1\n")
    with pytest.raises(UserError, match="was not written by a run"):
        RunDir.load(path)


@pytest.mark.parametrize("text", [
    "config:\n  no_such_key: 1\n", "config:\n  train: {batch_size: many}\n",
    "config: [" + "[" * 1000, "\x00\x01",
])  # fmt: skip
def test_a_config_that_is_not_ours_is_refused(config, text):
    """Tags and links are in tests/faults/test_11_security.py."""
    with RunDir.open(config) as run:
        run.config_file.write_text(text)
    for look in (lambda: RunDir.open(config), lambda: RunDir.load(run.path)):
        with pytest.raises(UserError, match="config.yaml"):
            look()


@pytest.mark.parametrize("part", ["config.yaml", "metrics.jsonl", "lock", "checkpoints", "other"])
def test_pipes_in_a_run_are_refused(tmp_path, config, part, impatient):
    with RunDir.open(config) as run:
        pass
    if (run.path / part).exists():
        (run.path / part).rename(tmp_path / "elsewhere")
    os.mkfifo(run.path / part)
    for look in (lambda: RunDir.open(config), lambda: RunDir.load(run.path)):
        with pytest.raises(UserError, match=f"{part} is neither a file nor|no config.yaml"):
            look()


def test_a_logdir_one_may_not_write_to_is_said(config):
    with ordinary_user() as folder:
        folder.chmod(0o555)
        config = config.replace({"logdir": str(folder / "runs")})
        with pytest.raises(UserError, match=f"cannot write to {folder}; choose a --logdir"):
            RunDir.open(config)


@pytest.mark.parametrize(
    ("name", "reason"), [("file", "cannot make .*file is no folder"), ("x" * 300, "name too long")]
)
def test_a_logdir_that_cannot_be_made_is_said(tmp_path, config, name, reason):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"{reason}; choose a --logdir"):
        RunDir.open(config.replace({"logdir": str(tmp_path / name)}))


@pytest.mark.parametrize("folder", ["episodes", "eval_episodes", "videos", "nonfinite"])
def test_what_a_killed_process_has_half_written_is_removed(config, folder):
    with RunDir.open(config) as run:
        left = run.path / folder / ".20261120T120000-s0e00000001-9.npz.123.tmp"
        left.parent.mkdir(exist_ok=True)
        left.write_bytes(b"half")
    RunDir.open(config).close()
    assert not left.exists() and left.parent.exists()
