"""Export of a run, and the agents that come with dreamer."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from whole_runs import ROOT, TASK, DebugRuns, contents

from dreamer.agent.agent import Agent
from dreamer.analysis.model_card import HEAD, table_line
from dreamer.config.config import load_config
from dreamer.errors import UserError
from dreamer.evaluate import evaluate
from dreamer.export import export, last_record, main, thinned
from dreamer.io.yaml_files import read_yaml
from dreamer.predict import default_output
from dreamer.runs.exports import pretrained
from dreamer.runs.rundir import RunDir
from dreamer.training.build import make_agent

LAST = "checkpoints/000000000400"


@pytest.fixture(scope="module")
def exported(
    debug_runs: DebugRuns, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Agent], list[str]]:
    """The debug run's folder, the agents before and after the export, and what was said."""
    agents: list[Agent] = []
    said: list[str] = []

    def make(*arguments: Any) -> Any:
        agents.append(make_agent(*arguments))
        return agents[-1]

    folder = tmp_path_factory.mktemp("out") / "below" / "balance"
    assert export(
        debug_runs.path, folder, episodes=1, make_agent=make, on_progress=said.append
    ) == folder  # fmt: skip
    return folder, agents, said


def test_a_folder_with_what_acting_needs(
    exported: tuple[Path, list[Agent], list[str]], debug_runs: DebugRuns
):
    folder, agents, said = exported
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "checkpoints", "config.yaml", "evaluation.json", "metrics.jsonl",
    ]  # fmt: skip
    assert list(folder.parent.iterdir()) == [folder]
    assert said[1] == f"loading {folder} and its environments"
    content = read_yaml(folder / "config.yaml")
    assert content["config"]["logdir"] == "runs/" and "host" not in content
    assert content["exported"]["observations"] == "image: uint8 [64, 64, 3]"
    assert (folder / "metrics.jsonl").read_bytes() == (
        debug_runs.path / "metrics.jsonl"
    ).read_bytes()
    outcome = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    assert (outcome["checkpoint"], outcome["step"], outcome["run"]) == (LAST, 400, "balance")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"return {outcome['eval/return']:.1f} +- 0.0" in card and "| licence | MIT |" in card
    command = f"python -m dreamer.run --task={TASK} --seed=0 --configs debug --precision=float32"
    assert command in card
    assert str(debug_runs.path.parents[2]) not in "".join(
        path.read_text(encoding="utf-8") for path in folder.iterdir() if path.is_file()
    )
    before, after = (agent.state_arrays() for agent in agents)
    small = (folder / LAST / "arrays.npz").stat().st_size
    assert small < 0.3 * (debug_runs.path / LAST / "arrays.npz").stat().st_size
    differing = {name for name in before if not np.allclose(before[name], after[name], 1e-3, 1e-6)}
    assert [name for name in differing if "/adam/" not in name] == ["policy_calls"]


def test_rounding_alone_differs(exported: tuple[Path, list[Agent], list[str]]):
    agents = exported[1]
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (2, 6, 64, 64, 3), np.uint8),
        "action": rng.uniform(-1, 1, (2, 6, 1)).astype(np.float32),
        "reward": np.zeros((2, 6), np.float32), "cont": np.ones((2, 6), np.float32),
        "is_first": np.zeros((2, 6), bool),
    }  # fmt: skip
    found = []
    for agent in agents:
        agent.policy_calls = 0
        first = {"image": batch["image"][:, 0], "is_first": np.ones(2, bool)}
        action, state = agent.policy(first, None, "eval")
        feat = agent.world_model.rssm.feat({k: v for k, v in state.items() if k != "action"})
        predicted = agent.predict(batch, 3)
        found.append([action, agent.value(feat).numpy(), predicted["model/reward"],
                      predicted["model/image"].astype(float) / 255])  # fmt: skip
    for before, after in zip(*found, strict=True):
        np.testing.assert_allclose(after, before, atol=0.01)


def test_it_is_a_run_that_cannot_be_resumed(
    exported: tuple[Path, list[Agent], list[str]], tmp_path: Path
):
    folder, before = exported[0], contents(exported[0])
    with pytest.raises(UserError, match="is an exported agent: leave --checkpoint out"):
        evaluate(folder, checkpoint="best")
    with pytest.raises(UserError, match="is an exported agent already"):
        export(folder, tmp_path / "again")
    place = tmp_path / TASK / "dreamer_debug" / "0"
    place.parent.mkdir(parents=True)
    folder.rename(place)
    try:
        config = load_config("debug", task=TASK, overrides={"logdir": str(tmp_path)})
        with pytest.raises(UserError, match=rf"no optimizer .* --init_from {place} and another"):
            RunDir.open(config)
    finally:
        place.rename(folder)
    assert contents(folder) | {"lock": b""} == before | {"lock": b""}


def test_mistakes_get_one_line(tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    run = "pretrained:cartpole"
    for words, message in [
        ([], "--run is missing"),
        (["--run", run], "--out is missing"),
        (["--run", run, "--out", str(tmp_path / "full")], "exists already: choose a new folder"),
        (["--run", run, "--out", str(tmp_path / "full" / "file")], "exists already"),
        (["--run", run, "--out", str(tmp_path / "full/file/x")], "cannot make"),
        (["--run", run, "--out", "pretrained:mine"], "name a folder"),
        (["--run", run, "--out", "."], "name a folder"),
        (["--run", "pretrained:cartpol", "--out", str(tmp_path / "x")], "did you mean"),
        (["--run", str(tmp_path), "--out", str(tmp_path / "x")], "is not a run's directory"),
    ]:
        with pytest.raises(UserError) as error:
            main(words)
        assert message in str(error.value), words
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_metrics_are_thinned_but_for_evaluations():
    lines = [
        json.dumps({"step": i, "x": "y" * 400} | ({"eval/return": 1} if i % 100 == 0 else {}))
        .encode() + b"\n" for i in range(2000)
    ]  # fmt: skip
    kept = thinned(lines)
    assert sum(map(len, kept)) <= 200_000 and len(kept) > 200
    assert [line for line in kept if b"eval/return" in line] == lines[::100]
    assert thinned(lines[:9]) == lines[:9]
    assert sum(map(len, thinned(lines[::100] * 100))) <= 200_000
    assert last_record([*lines, b"{"], 1500)["step"] == 1500
    assert last_record(lines[1:], 0) == {}


def test_the_readmes_table_is_of_the_agents_that_are_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| `pretrained:.*$", text, re.M)
    found = pretrained()
    assert lines == [table_line(path, f"pretrained:{name}") for name, path in found.items()]
    assert HEAD in text
    for name, path in found.items():
        assert sum(f.stat().st_size for f in path.glob("checkpoints/*/*")) < 3_000_000, name
    assert default_output("pretrained:cartpole") == Path("predictions", "cartpole")
