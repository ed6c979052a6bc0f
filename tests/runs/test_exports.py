"""Exported agents: their names, their half precision, and what completes them."""

from pathlib import Path

import numpy as np
import pytest

from dreamer.errors import UserError
from dreamer.runs import exports
from dreamer.runs.checkpoints import Checkpoint
from dreamer.runs.exports import MARK, arrays_for, halved, resolve_run


def test_names_of_pretrained_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exports.dreamer, "__file__", str(tmp_path / "dreamer" / "__init__.py"))
    with pytest.raises(UserError, match="no pretrained agent 'x'; there are none"):
        resolve_run("pretrained:x")
    folder = tmp_path / "baselines" / "pretrained"
    for name in ("walker_walk", "cartpole"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.yaml").write_text("{}", encoding="utf-8")
    (folder / "no_run").mkdir()
    assert resolve_run("pretrained:walker_walk") == folder / "walker_walk"
    assert resolve_run("runs/x/0") == resolve_run(Path("runs/x/0")) == Path("runs/x/0")
    for name, message in {
        "walker_wlak": "no pretrained agent 'walker_wlak'; did you mean 'pretrained:walker_walk'",
        "no_run": "there are pretrained:cartpole, pretrained:walker_walk",
        "": "no pretrained agent ''",
        "../pretrained/cartpole": "no pretrained agent",
        ".": "no pretrained agent '.'",
    }.items():
        with pytest.raises(UserError, match=message):
            resolve_run(f"pretrained:{name}")


def test_matrices_have_half_precision_where_it_has_their_range():
    arrays = {
        "matrix": np.full((2, 2), 1.2345678, np.float32),
        "large": np.array([[1e5, 0.0]], np.float32),
        "nan": np.array([[np.nan]], np.float32),
        "vector": np.full(3, 1.2345678, np.float32),
        "count": np.array(7, np.int64),
        "flags": np.ones((2, 2), bool),
    }
    found = halved(arrays)
    assert {name for name, a in found.items() if a.dtype != arrays[name].dtype} == {"matrix"}
    np.testing.assert_allclose(found["matrix"], arrays["matrix"], rtol=2**-11)


class Acting:
    """An agent that needs only the weight `a` to act."""

    def acting_arrays(self) -> dict[str, np.ndarray]:
        return {"a": np.zeros((1, 2), np.float32)}

    def state_arrays(self) -> dict[str, np.ndarray]:
        return {**self.acting_arrays(), "a/adam/m": np.full((1, 2), 5.0, np.float32)}


def test_the_agent_itself_completes_an_exported_checkpoint():
    agent, half = Acting(), np.array([[0.1, 0.2]], np.float16)
    found = Checkpoint(1, {"a": half}, {MARK: True}, Path())
    whole = arrays_for(agent, found, agent.state_arrays())
    assert list(whole) == ["a", "a/adam/m"] and whole["a"].dtype == np.float32
    np.testing.assert_array_equal(whole["a"], half)
    other = {"b": half}
    with pytest.raises(ValueError, match=r"differing: \['a', 'b'\]"):
        arrays_for(agent, Checkpoint(1, other, {MARK: True}, Path()), agent.state_arrays())
    assert arrays_for(agent, Checkpoint(1, other, {}, Path()), agent.state_arrays()) is other
