"""Silences TensorFlow before any test imports it, and makes a run for tests to read."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import whole_runs
from filelock import FileLock

from dreamer.system.tensorflow import use_onednn

use_onednn()  # tests compute as programs do
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_XLA_FLAGS", "")  # tests keep no programs

# Files that take longest, which start first, so that the processes of `make test` end together.
LONGEST = (
    "test_run", "test_learner", "test_agent", "test_a3c_runs", "test_trainer", "test_02_resume",
    "test_evaluate", "test_api", "test_predict", "test_08_memory", "test_baseline_runs",
    "test_report", "test_agent_variants", "test_plot", "test_05_environments", "test_01_kill",
    "test_packaging", "test_12_soak", "test_pool", "test_agent_routing", "test_off_policy",
    "test_precision", "test_representation", "test_dmc",
)  # fmt: skip

# No `if __name__ == "__main__"`: nothing may need one, since no process imports the script anew.
SCRIPT = f"""
from dreamer import load_config, train
config = load_config(
    "debug", task="{whole_runs.TASK}",
    overrides={{
        "precision": "float32", "deterministic": True, "steps": 240, "logdir": "from_script",
    }},
)
result = train(config)
print(result.path, result.step, result.updates, result.eval_return)
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


def pytest_collection_finish() -> None:
    """Spares the garbage collector what was imported: TensorFlow alone is a million objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def eagerly(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs tf.functions eagerly, slow tests apart: tracing takes ten times as long as one run."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(request.node.get_closest_marker("slow") is None)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def impatient() -> Iterator[None]:
    """Fails a test that waits for ever, as at a pipe."""

    def give_up(*_: object) -> None:
        pytest.fail("it has waited for two minutes")  # no OSError, which might be caught

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def added_configs() -> Iterator[None]:
    """Forgets, after the test, the folders of configs that it has added."""
    from dreamer.config import schema

    before = list(schema._added)
    yield
    schema._added[:] = before
    for cached in (schema.load_schema, schema.agent_file, schema.agent_names, schema.read_defaults):
        cached.cache_clear()


@pytest.fixture(scope="session")
def debug_runs(tmp_path_factory: pytest.TempPathFactory) -> whole_runs.DebugRuns:
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # shared by the processes that run tests: one of them makes the runs
    root = base / "debug_runs"
    with FileLock(base / "debug_runs.lock"):
        printed = root / "printed.json"
        if not printed.exists():
            printed.write_text(json.dumps(_make_debug_runs(root)), encoding="utf-8")
        output, errors, script_output = json.loads(printed.read_text(encoding="utf-8"))
    return whole_runs.DebugRuns(
        root / "runs" / whole_runs.RUN, root / "from_script" / whole_runs.RUN,
        output, errors, script_output,
    )  # fmt: skip


def _make_debug_runs(root: Path) -> tuple[str, str, str]:
    """Makes the same run by command and, in part, by script; returns what they printed."""
    root.mkdir()
    (root / "script.py").write_text(SCRIPT, encoding="utf-8")
    command = whole_runs.start("dreamer.run", *whole_runs.DEBUG, "--logdir", root / "runs")
    script = subprocess.Popen(
        [sys.executable, "script.py"], cwd=root, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(whole_runs.ROOT)},
    )  # fmt: skip
    status, output, errors = whole_runs.finish(command)
    assert status == 0, errors
    status, script_output, script_errors = whole_runs.finish(script)
    assert status == 0, script_errors
    return output, errors, script_output


@pytest.fixture
def run(debug_runs: whole_runs.DebugRuns, tmp_path: Path) -> Path:
    """A copy of the debug run, at its place below `tmp_path`, which the test may change."""
    return Path(shutil.copytree(debug_runs.path, tmp_path / whole_runs.RUN))


@pytest.fixture(scope="session")
def lab_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training on DeepMind Lab's stand-in, from images and velocities; tests change copies."""
    root = tmp_path_factory.mktemp("lab")
    whole_runs.train(*whole_runs.LAB, "--logdir", root, env=whole_runs.with_lab())
    return root / whole_runs.LAB_RUN
