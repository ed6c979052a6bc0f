"""The registry of agents, and an agent from a folder outside the package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from test_baseline_runs import QUICK, TASKS
from whole_runs import metrics_of

from baselines import registry
from baselines.run import main
from dreamer.config import schema

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
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with an agent `mean`, and its entry in the registry."""
    (tmp_path / "mean_agent.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "configs" / "agents").mkdir(parents=True)
    (tmp_path / "configs" / "agents" / "mean.yaml").write_text(KEYS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    before = list(schema._added)
    monkeypatch.setattr(registry, "AGENTS", dict(registry.AGENTS))
    registry.register("mean", registry.Entry("mean_agent:make"), tmp_path / "configs")
    yield
    schema._added[:] = before
    for cached in (schema.load_schema, schema.agent_file, schema.agent_names, schema._defaults):
        cached.cache_clear()


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
        assert callable(registry._function(registry.AGENTS[name].agent))
        assert (registry.experience_of(name) is None) == (name == "random")
