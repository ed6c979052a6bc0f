"""The benchmark: its figures at debug size, its processes, its messages. No test asserts a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import benchmark_services
import numpy as np
import pytest

from dreamer.benchmarks.environment import measure_stepping
from dreamer.benchmarks.helper import Helper, HelperError, resident_bytes
from dreamer.benchmarks.replay import GrowthService, Sampling
from dreamer.benchmarks.report import BARS, flatten, judge
from dreamer.benchmarks.rounds import in_turn
from dreamer.benchmarks.synthetic import random_batch, random_episode, random_records
from dreamer.config import load_config
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.replay import Replay

ROOT = Path(__file__).resolve().parent.parent
ECHO = "benchmark_services:Echo"
CARTPOLE = f"{benchmark_services.__file__}:make_cartpole"
OBS = {
    "image": Space((64, 64, 3), np.dtype(np.uint8), 0, 255),
    "speed": Space((2,), np.dtype(np.float32)),
}
ONEHOT = Space((3,), np.dtype(np.float32), 0.0, 1.0, discrete=True)


def run_benchmark(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dreamer.benchmark", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


# ------------------------------------------------------------------ the program


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Figures and printed table of all parts on walker_walk, in every format a CPU may have."""
    path = tmp_path_factory.mktemp("benchmark") / "speed.json"
    precisions = ("--precisions", "float32", "bfloat16")
    done = run_benchmark("--quick", "--json", str(path), *precisions)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(path.read_text(encoding="utf-8")), done.stdout


def test_all_parts_have_their_keys(measured):
    results, _ = measured
    for precision in ("float32", "bfloat16"):
        assert set(results["update"][precision]) >= {
            "seconds", "flops", "matmul_flops_per_second", "over_floor",
        }  # fmt: skip
    assert set(results["env"]) >= {
        "steps_per_second", "steps_per_second_without_rendering", "over_reference",
        "over_reference_shadow_256", "collect_steps_per_second", "policy_seconds", "policy_flops",
    }  # fmt: skip
    assert set(results["replay"]) == {"sample_seconds", "share_of_update"}
    assert set(results["memory"]) == {"update", "policy", "replay"}
    assert results["memory"]["replay"]["episodes"] == 20


def test_figures_agree_with_each_other(measured):
    results, _ = measured
    for found in results["update"].values():
        assert found["flops"] == sum(results["flops"].values()) > 0
        floor = found["flops"] / found["matmul_flops_per_second"]
        assert found["over_floor"] == pytest.approx(found["seconds"] / floor)
    both = results["update"]
    ratio = both["bfloat16"]["seconds"] / both["float32"]["seconds"]
    assert both["bfloat16"]["over_float32"] == pytest.approx(ratio)
    env = results["env"]
    reduced = env["steps_per_second_shadow_256"] / env["reference_steps_per_second"]
    assert env["over_reference_shadow_256"] == pytest.approx(reduced)
    fastest = min(found["seconds"] for found in both.values())
    assert results["replay"]["share_of_update"] == pytest.approx(
        results["replay"]["sample_seconds"] / fastest
    )
    rates = [v for k, v in flatten(results).items() if k.endswith(("seconds", "_per_second"))]
    assert len(rates) > 10 and all(rate > 0 for rate in rates)


def test_every_bar_has_a_verdict_in_the_table(measured):
    results, table = measured
    assert len(results["verdicts"]) == len(BARS)
    rows = [line for line in table.splitlines() if " at most " in line or " at least " in line]
    verdicts = [row.split()[-1] for row in rows]
    assert sorted(verdicts) == sorted(
        "met" if verdict["met"] else "missed" for verdict in results["verdicts"].values()
    )
    assert "\x1b" not in table and "debug size" in table
    assert "2-core CPU" in table


def test_one_hot_actions_and_vectors(tmp_path: Path):
    path = tmp_path / "speed.json"
    done = run_benchmark(
        "--quick", "--task", CARTPOLE, "--envs.image", "false", "--parts", "update",
        "--precisions", "float32", "--json", str(path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(path.read_text(encoding="utf-8"))
    assert set(results["update"]) == {"float32"}
    assert "over_float32" not in results["update"]["float32"]
    assert not {"replay", "env"} & set(results) and set(results["memory"]) == {"update"}
    assert set(results["verdicts"]) == {"update.float32.over_floor"}


@pytest.mark.slow
def test_collecting_beside_updates(tmp_path: Path):
    path = tmp_path / "speed.json"
    done = run_benchmark(
        "--quick", "--task", CARTPOLE, "--envs.image", "false", "--parts", "overlap",
        "--precisions", "float32", "--json", str(path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(path.read_text(encoding="utf-8"))["overlap"]
    assert set(found) == {"here", "simulated_20_ms", "simulated_100_ms"}
    for kind in found.values():
        assert kind["gain"] == kind["sequential_seconds"] / kind["overlapped_seconds"] > 0


@pytest.mark.slow
def test_each_agent_has_its_row(tmp_path: Path):
    path = tmp_path / "speed.json"
    done = run_benchmark(
        "--quick", "--task", CARTPOLE, "--parts", "agents", "--precisions", "float32",
        "--json", str(path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(path.read_text(encoding="utf-8"))["agents"]
    assert set(found) == {"dreamer", "planet", "d4pg", "a3c", "latent_sac", "dqn"}
    for agent in ("dreamer", "planet", "a3c", "dqn"):
        assert found[agent]["seconds"] > 0 and f"{agent}: an update of" in done.stdout
    assert "continuous" in found["d4pg"]["refused"] and "d4pg: " in done.stdout


def test_agents_are_measured_as_their_presets_are():
    done = run_benchmark("--parts", "agents", "--encoder.cnn_depth", "8")
    assert done.returncode == 2 and "--encoder.cnn_depth is given" in done.stderr


def test_the_planner(tmp_path: Path):
    """On one-hot actions and vectors: what an update leaves out, and what an action costs."""
    path = tmp_path / "speed.json"
    done = run_benchmark(
        "--configs", "planet", "--quick", "--task", CARTPOLE, "--envs.image", "false",
        "--parts", "update", "env", "--precisions", "float32", "--json", str(path),
        "--planner.candidates", "20", "--planner.top", "5", "--planner.iterations", "3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(path.read_text(encoding="utf-8"))
    assert set(results["flops"]) == {"encoder", "rssm", "decoder", "reward", "discount"}
    env = results["env"]
    rate = env["policy_flops"] / env["policy_seconds"]
    assert env["policy_flops_per_second"] == pytest.approx(rate)
    # Three iterations of 20 plans of 12 steps, each of a few networks of 16 units.
    assert 720 * 2 * 16 * 16 < env["policy_flops"] < 720 * 2 * 16 * 16 * 20
    assert "env: policy flops" in done.stdout


def test_other_suites_have_no_reference():
    config = load_config("debug", task=CARTPOLE, overrides={"envs.image": False})
    found = measure_stepping(config, rounds=1, shortest=0.0)
    assert set(found) == {"steps_per_second"} and found["steps_per_second"] > 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--parts", "updates"], "--parts must be one of update, env, replay, memory"),
        (["--precisions", "int8"], "--precisions must be one of float32"),
        (["--updates", "0"], "--updates must be at least 1"),
        (["--json", "/nowhere/at/all.json"], "--json cannot write /nowhere/at/all.json"),
        (["--json", "/"], "--json cannot write /"),
        (["--train.batch", "3"], "unknown key"),
        (["--task", "dmc_walker_wlak", "--quick"], "did you mean 'dmc_walker_walk'"),
    ],
)
def test_mistakes_are_one_line_and_status_2(words: list[str], expected: str):
    done = run_benchmark(*words)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and expected in line


def test_help_needs_nothing_heavy():
    code = (
        "import sys\nfrom dreamer.benchmark import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'tensorflow', 'numpy', 'rich'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--precisions" in done.stdout and "--json" in done.stdout


# ---------------------------------------------------------------- the processes


@pytest.fixture
def echo() -> Iterator[Helper]:
    with Helper(ECHO, greeting="hello") as helper:
        yield helper


def test_services_answer_from_a_process_of_their_own(echo: Helper):
    assert echo.ask("say", name="you") == {"said": "hello you"}
    assert "tensorflow" not in echo.ask("modules")
    assert echo.ask("pid") != os.getpid()


def test_errors_come_back_and_the_service_lives_on(echo: Helper):
    with pytest.raises(HelperError, match="something went wrong"):
        echo.ask("fail")
    assert echo.ask("say", name="again") == {"said": "hello again"}


def test_death_is_told_with_the_last_words(echo: Helper):
    with pytest.raises(HelperError, match="(?s)exit status 3.*last words"):
        echo.ask("die")


def test_mistakes_of_the_user_stay_such():
    with pytest.raises(UserError, match="needs a greeting"):
        Helper(ECHO, greeting="")


def test_closing_ends_the_process():
    with Helper(ECHO, greeting="hi") as helper:
        pid = helper.ask("pid")
    assert not Path(f"/proc/{pid}").exists()
    helper.close()


# -------------------------------------------------------------------- the rounds


def test_measures_take_turns():
    calls: list[tuple[str, int]] = []

    def measure(name: str, seconds: float):
        def run(count: int) -> float:
            calls.append((name, count))
            return seconds * count

        return run

    measures = {"slow": measure("slow", 2.0), "fast": measure("fast", 0.25)}
    assert in_turn(measures, 2, shortest=1.0) == {"slow": 2.0, "fast": 0.25}
    first = [("slow", 1), ("slow", 1), ("fast", 1), ("fast", 1)]
    assert calls == first + [("slow", 1), ("fast", 4)] * 2


def test_the_median_counts_and_not_the_mean():
    seconds = iter([100.0, 1.0, 3.0, 50.0, 2.0])
    assert in_turn({"it": lambda count: next(seconds)}, 3, 0.0) == {"it": 3.0}


def test_verdicts():
    results = {
        "update": {"float32": {"over_floor": 1.5}, "bfloat16": {"over_float32": 0.81}},
        "env": {"over_reference": 1.79, "over_reference_shadow_512": 3.0},
    }
    assert {key: verdict["met"] for key, verdict in judge(results).items()} == {
        "update.float32.over_floor": True,
        "update.bfloat16.over_float32": False,
        "env.over_reference": False,
        "env.over_reference_shadow_512": True,
    }


# ------------------------------------------------------- replay and its contents


def test_random_records_are_what_a_replay_takes(tmp_path: Path):
    replay = Replay(tmp_path, cache_bytes=0, seed=0, obs_space=OBS, act_space=ONEHOT)
    episode = random_episode(OBS, ONEHOT, 9, np.random.default_rng(0))
    replay.add(episode, "one")
    sampled = replay.sample(0, 2, 4)
    batch = random_batch(OBS, ONEHOT, 2, 4, seed=0)
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
        k: (v.shape, v.dtype) for k, v in sampled.items()
    }
    assert np.array_equal(batch["action"].sum(-1), np.ones((2, 4)))
    assert batch["image"].max() > 200
    records = random_records(OBS, ONEHOT, 5, seed=0)
    assert set(records) == set(batch) - {"action"}
    assert records["image"].shape == (5, 64, 64, 3) and not records["is_first"].any()


def test_sampling_draws_batches_and_leaves_nothing_behind(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    config = load_config("debug")
    with Sampling(config, (OBS, ONEHOT), 2, 9) as sampling:
        assert sampling.sample(2) > 0
        assert len(list(tmp_path.glob("*/*.npz"))) == 2
    assert not list(tmp_path.iterdir())


def test_no_room_is_said_before_anything_is_written():
    with pytest.raises(UserError, match="set TMPDIR"):
        Sampling(load_config("debug"), (OBS, ONEHOT), 10**9, 501)


def test_growth_counts_what_came_in(tmp_path: Path):
    service = GrowthService(
        load_config("debug").flat(), {k: s.to_json() for k, s in OBS.items()}, ONEHOT.to_json()
    )
    found = service.grow(str(tmp_path), episodes=5, length=9)
    episode = random_episode(OBS, ONEHOT, 9, np.random.default_rng(0))
    assert found["added_bytes"] == 5 * sum(array.nbytes for array in episode.values())
    assert found["episodes"] == 5 and found["resident_bytes"] > 0


def test_resident_memory_is_told_in_bytes():
    before = resident_bytes()
    block = np.ones(40_000_000, np.uint8)
    assert 30e6 < resident_bytes() - before < 60e6
    del block
