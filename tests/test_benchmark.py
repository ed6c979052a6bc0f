"""The benchmark: its figures at debug size and its messages. No test asserts a time."""

import json
from pathlib import Path
from typing import Any

import benchmark_services
import pytest
from whole_runs import python

from dreamer.benchmark import main
from dreamer.benchmarks.bench import measure_stepping
from dreamer.benchmarks.table import LIMITS, flatten
from dreamer.config.config import load_config
from dreamer.errors import UserError

CARTPOLE = ("--task", f"{benchmark_services.__file__}:make_cartpole", "--envs.image", "false")


# Short sequences and imagination: seconds to trace.
SHORT = ("--train.batch_length", "3", "--behavior.horizon", "2")


def measure(folder: Path, *words: str) -> tuple[dict[str, Any], str]:
    """Figures and printed table of a quick benchmark."""
    path = folder / "speed.json"
    done = python("-m", "dreamer.benchmark", "--quick", "--json", str(path), *words)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(path.read_text(encoding="utf-8")), done.stdout


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Figures and table of the default parts on walker_walk, in both formats of a CPU."""
    folder = tmp_path_factory.mktemp("benchmark")
    return measure(folder, *SHORT, "--precisions", "float32", "bfloat16")


@pytest.mark.slow
def test_all_parts_have_their_keys_and_figures_agree(measured):
    results, table = measured
    env, both, replay = (results[part] for part in ("env", "update", "replay"))
    assert set(env) == {
        "steps_per_second", "steps_per_second_without_rendering", "steps_per_second_shadow_256",
        "reference_steps_per_second", "over_reference", "over_reference_shadow_256", "gl",
        "renderer", "collect_steps_per_second", "policy_seconds", "policy_flops",
        "policy_flops_per_second",
    }  # fmt: skip
    assert set(replay) == {"sample_seconds", "share_of_update"}
    assert set(results["memory"]) == {"update", "replay"}
    assert results["memory"]["replay"]["episodes"] == 20
    for found in both.values():
        assert found["flops"] == sum(results["flops"].values()) > 0
        floor = found["flops"] / found["matmul_flops_per_second"]
        assert found["floor_seconds"] == pytest.approx(floor)
        assert found["over_floor"] == pytest.approx(found["seconds"] / floor)
    seconds = {precision: both[precision]["seconds"] for precision in ("float32", "bfloat16")}
    ratio = seconds["bfloat16"] / seconds["float32"]
    assert both["bfloat16"]["over_float32"] == pytest.approx(ratio)
    reduced = env["steps_per_second_shadow_256"] / env["reference_steps_per_second"]
    assert env["over_reference_shadow_256"] == pytest.approx(reduced)
    share = replay["sample_seconds"] / min(seconds.values())
    assert replay["share_of_update"] == pytest.approx(share)
    rates = [v for k, v in flatten(results).items() if k.endswith(("seconds", "_per_second"))]
    assert len(rates) > 10 and all(rate > 0 for rate in rates)
    # Every limit has a verdict in the table.
    assert len(results["verdicts"]) == len(LIMITS)
    rows = [line for line in table.splitlines() if " at most " in line or " at least " in line]
    assert sorted(row.split()[-1] for row in rows) == sorted(
        "met" if verdict["met"] else "missed" for verdict in results["verdicts"].values()
    )
    assert "\x1b" not in table and "debug size" in table and "2-core CPU" in table


@pytest.mark.slow
def test_a_planner_with_one_hot_actions_and_vectors(tmp_path: Path):
    """Measures the chosen parts alone, what an update leaves out, and what an action costs."""
    results, table = measure(
        tmp_path, "--configs", "planet", *CARTPOLE, *SHORT, "--parts", "update", "env",
        "--precisions", "float32", "--planner.candidates", "20", "--planner.num_elites", "5",
        "--planner.iterations", "3",
    )  # fmt: skip
    assert set(results["flops"]) == {"encoder", "rssm", "decoder", "reward", "discount"}
    env = results["env"]
    rate = env["policy_flops"] / env["policy_seconds"]
    assert env["policy_flops_per_second"] == pytest.approx(rate)
    # Three iterations of 20 plans of 12 steps, each of a few networks of 16 units.
    assert 720 * 2 * 16 * 16 < env["policy_flops"] < 720 * 2 * 16 * 16 * 20
    assert "env: policy flops" in table
    assert set(results["update"]) == {"float32"}
    assert "over_float32" not in results["update"]["float32"]
    assert "replay" not in results and set(results["memory"]) == {"update"}
    assert set(results["verdicts"]) == {"update.float32.over_floor"}


@pytest.mark.slow
def test_collecting_beside_updates_and_each_agent_in_its_row(tmp_path: Path):
    words = ("--precisions", "float32", "--parts")
    results, _ = measure(tmp_path, *CARTPOLE, *SHORT, *words, "overlap")
    assert set(results["overlap"]) == {"here", "simulated_20_ms", "simulated_100_ms"}
    for kind in results["overlap"].values():
        assert kind["gain"] == kind["sequential_seconds"] / kind["overlapped_seconds"] > 0
    results, table = measure(tmp_path, *CARTPOLE[:2], *words, "agents")
    found = results["agents"]
    assert set(found) == {"dreamer", "planet", "d4pg", "a3c", "latent_sac", "dqn"}
    for agent in ("dreamer", "planet", "a3c", "dqn"):
        assert found[agent]["seconds"] > 0 and f"{agent}: an update of" in table
    assert "continuous" in found["d4pg"]["refused"] and "d4pg: " in table


def test_other_suites_have_no_reference():
    config = load_config("debug", task=CARTPOLE[1], overrides={"envs.image": False})
    found = measure_stepping(config, rounds=1, shortest=0.0)
    assert set(found) == {"steps_per_second"} and found["steps_per_second"] > 0


@pytest.mark.parametrize(("words", "expected"), [
    ("--parts updates", "--parts must be one of update, env, replay, memory"),
    ("--precisions int8", "--precisions must be one of float32"),
    ("--updates 0", "--updates must be at least 1"),
    ("--json /nowhere/at/all.json", "--json cannot write /nowhere/at/all.json"),
    ("--json /", "--json cannot write /"),
    ("--train.batch 3", "unknown key"),
    ("--parts agents --encoder.cnn_depth 8", "--encoder.cnn_depth is given"),
])  # fmt: skip
def test_usage_errors(words: str, expected: str):
    with pytest.raises(UserError) as caught:
        main(words.split())
    assert expected in str(caught.value)


def test_a_usage_error_is_one_line_and_status_2():
    done = python("-m", "dreamer.benchmark", "--task", "dmc_walker_wlak", "--quick")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "did you mean 'dmc_walker_walk'" in line


def test_help_needs_nothing_heavy():
    code = (
        "import sys\nfrom dreamer.benchmark import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'tensorflow', 'numpy', 'rich'} & set(sys.modules)"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "--precisions" in done.stdout and "--json" in done.stdout
