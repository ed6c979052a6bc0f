"""11. A stranger's files are refused without effect; no port is open; lock files have hashes."""

import ast
import io
import os
import re
import shutil
import socket
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import test_source
from episode_samples import make_episode
from fault_runs import Figure, config_for, counting_replay, start, words_for
from ray_helpers import LOOPBACK, descendants, listening
from whole_runs import wait_until

from dreamer.config.config import load_config
from dreamer.data.episodes import EpisodeError, EpisodeFile, save_episode
from dreamer.errors import UserError
from dreamer.evaluate import evaluate
from dreamer.io.files import open_to_append
from dreamer.logs.metrics import MetricsFile
from dreamer.predict import predict
from dreamer.runs.checkpoints import Checkpoints
from dreamer.runs.rundir import RunDir
from dreamer.sweeps import trial
from dreamer.sweeps.trial import TrialRefusedError, run_trial

ROOT = test_source.ROOT
SERVING = {"bind", "listen", "serve_forever", "create_server", "HTTPServer", "TCPServer"}


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


def trapped(mark: Path) -> bytes:
    """An .npy whose reading with pickle would make `mark`."""
    stream = io.BytesIO()
    np.save(stream, np.array([Trap(mark)], dtype=object), allow_pickle=True)
    return stream.getvalue()


def put(path: Path, name: str, content: bytes) -> None:
    """Exchanges one member of an .npz."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in {**members, name: content}.items():
            archive.writestr(key, value)


def test_an_object_array_is_no_episode_and_no_checkpoint(tmp_path: Path, figure: Figure):
    mark = tmp_path / "opened"
    path = save_episode(tmp_path / "episodes", make_episode(20), "a")
    put(path, "reward.npy", trapped(mark))
    with pytest.warns(UserWarning, match="set aside"):
        replay = counting_replay(tmp_path / "episodes")
    assert len(replay) == 0 and replay.damaged == 1
    with pytest.raises(EpisodeError, match="it describes object"):
        EpisodeFile(tmp_path / "episodes" / "damaged" / path.name).read()
    folder = Checkpoints(tmp_path / "checkpoints").save(1, {"a": np.zeros(3)}, {})
    put(folder / "arrays.npz", "a.npy", trapped(mark))
    with pytest.raises(UserError, match="no checkpoint can be used"):
        Checkpoints(tmp_path / "checkpoints").load_latest()
    assert not mark.exists()
    figure("object arrays with a payload: refused as episode and as checkpoint, payload not run")


@pytest.mark.parametrize("text", [
    "config: !!python/object/apply:os.mkdir [{mark}]",
    "config: {{task: !!python/name:os.system }}",
    "config: {{logdir: !!python/object/new:os.mkdir [{mark}] }}",
    "!!python/module:os",
    "config: {{task: dmc_walker_walk, method: ../../elsewhere}}",
    "config: {{task: dmc_walker_walk, seed: ../../elsewhere}}",
    "config: [1, 2]",
])  # fmt: skip
def test_a_config_with_tags_or_paths_is_refused_without_effect(tmp_path: Path, text: str):
    mark, run = tmp_path / "made", tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(text.format(mark=mark))
    (tmp_path / "preset.yaml").write_text(text.format(mark=mark))
    with pytest.raises(UserError):
        loaded, config = RunDir.load(run)
        RunDir.open(config)
    with pytest.raises(UserError):
        load_config(str(tmp_path / "preset.yaml"))
    assert not mark.exists() and not (tmp_path / "elsewhere").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"run", "preset.yaml"}


@pytest.mark.parametrize("part", [
    *("config.yaml", "lock", "metrics.jsonl", "metrics.jsonl.dropped", "sinks.json", "wandb"),
    *("episodes", "eval_episodes", "checkpoints", "videos", "nonfinite", "predictions"),
    *("attempts.jsonl", "output.log", "events.out.tfevents.1", "a name of its maker's choice"),
])  # fmt: skip
def test_links_out_of_a_run_are_refused_without_effect(tmp_path: Path, part: str):
    config = config_for(tmp_path)
    with RunDir.open(config) as run:
        path = run.path
    outside = tmp_path / "outside"
    target = outside / part
    outside.mkdir()
    if (path / part).is_dir():
        shutil.move(path / part, target)
    elif (path / part).exists():
        (path / part).rename(target)
    else:
        target.write_text("theirs")
    before = {p: p.read_bytes() for p in outside.rglob("*") if p.is_file()}
    (path / part).symlink_to(os.path.relpath(target, path))  # by way of ..
    with pytest.raises(UserError, match="is a link"):
        RunDir.open(config)
    with pytest.raises(UserError, match="is a link"):
        RunDir.load(path)
    assert before == {p: p.read_bytes() for p in outside.rglob("*") if p.is_file()}


def test_what_is_appended_to_follows_no_link(tmp_path: Path):
    theirs = tmp_path / "theirs"
    theirs.write_text('{"step": 1}\n')
    run = tmp_path / "run"
    for name in ("metrics.jsonl.dropped", "metrics.jsonl", trial.ATTEMPTS, trial.LOG):
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        (run / "metrics.jsonl").write_text("torn")  # what is torn goes to the file beside it
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(theirs)
        with pytest.raises(UserError, match="it is a link, which is not"):
            MetricsFile(run / "metrics.jsonl")
            trial.record_attempt(run, "start")
            open_to_append(run / name)
        with pytest.raises(TrialRefusedError, match=f"{name} is a link"):
            run_trial(str(run), ["no.such.module"], 1, 1.0, str(tmp_path))
        assert theirs.read_text() == '{"step": 1}\n'


def test_a_strangers_run_does_not_run_the_code_that_it_names(tmp_path: Path, figure: Figure):
    mark = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    for number, task in enumerate((f"{tmp_path}/evil.py:make", "gym_evil:Env-v0")):
        with RunDir.open(config_for(tmp_path / f"runs{number}", task)) as run:
            pass
        with pytest.raises(UserError, match="runs code of its own.*--task"):
            evaluate(run.path, episodes=1)
    values = {"envs.arguments": '{"xml_file": "theirs.xml"}'}
    with RunDir.open(config_for(tmp_path / "runs2", "gym_Ant-v5", **values)) as run:
        pass
    with pytest.raises(UserError, match="gets arguments that its config.yaml names.*--task"):
        evaluate(run.path, episodes=1)
    assert not mark.exists()
    figure("a run from a stranger: links, .., tags and code that its config names are refused")


def test_a_strangers_run_does_not_run_the_python_that_it_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    mark, program = tmp_path / "ran", tmp_path / "python"
    program.write_text(f"#!/bin/sh\nmkdir {mark}\n")
    program.chmod(0o755)
    values = {"envs.image": False, "envs.state": True, "envs.python": str(program)}
    with RunDir.open(config_for(tmp_path / "runs", "gym_CartPole-v1", **values)) as run:
        Checkpoints(run.checkpoints).save(1, {"a": np.zeros(3)}, {})
    for look, refused in (  # both with environments that are running
        (partial(evaluate, run.path, video_episodes=1), "encoder.keys"),
        (partial(predict, str(run.path), horizon=10**6), "need episodes of"),
    ):
        with pytest.raises(UserError, match=refused):
            look()
        said = capsys.readouterr().err
        assert f"'{program}', is not used: add --python {program} if you trust that" in said
        assert not mark.exists()
        with pytest.raises(UserError, match=f"envs.python is {program}"):
            look(python=str(program))
        mark.rmdir()  # the program has run now


def test_nothing_listens():
    """No module of ours opens a port, except on the loopback address."""
    for path in test_source.PROGRAM_SOURCES:
        for node in ast.walk(test_source.tree_of(path)):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func).rpartition(".")[2]
            text = ast.unparse(node)
            local = "127.0.0.1" in text or "localhost" in text or "serve_forever" in text
            if ast.unparse(node.func) == "signature.bind":  # of a function's arguments
                continue
            assert name not in SERVING or local, f"{path}, line {node.lineno}: {text[:80]}"


@pytest.mark.slow
def test_a_live_run_and_its_environments_listen_on_nothing(tmp_path: Path, figure: Figure):
    with socket.create_server(("127.0.0.1", 0)):
        assert listening([os.getpid()]) <= LOOPBACK and listening([os.getpid()])
    with start(words_for(tmp_path, steps=100_000)) as process:
        try:
            wait_until(lambda: bool(list(tmp_path.glob("*/*/*/checkpoints/0*"))), process)
            pids = [process.pid, *descendants(process.pid)]
            found = listening(pids)
        finally:
            process.kill()
    assert len(pids) >= 4 and not found
    figure(f"a live run, {len(pids)} processes: no socket listens")


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-gpu.lock"])
def test_dependencies_are_locked_with_hashes_and_name_no_index(name: str):
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) > 50
    for line in lines:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,-]+\])?==\S+", line), line
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), line
    assert "--require-hashes" in (ROOT / ".ci/setup.sh").read_text(encoding="utf-8")
