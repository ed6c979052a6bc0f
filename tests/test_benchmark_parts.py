"""What the benchmark is made of: its processes, its rounds, and contents for a replay."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dreamer.benchmarks.helper import Helper, HelperError, resident_bytes
from dreamer.benchmarks.replay import GrowthService, Sampling
from dreamer.benchmarks.report import judge
from dreamer.benchmarks.rounds import in_turn
from dreamer.benchmarks.synthetic import random_batch, random_episode, random_timesteps
from dreamer.config.config import load_config
from dreamer.data.replay import Replay
from dreamer.envs.spec import Space
from dreamer.errors import UserError

ECHO = "benchmark_services:Echo"
OBS = {
    "image": Space((64, 64, 3), np.dtype(np.uint8), 0, 255),
    "speed": Space((2,), np.dtype(np.float32)),
}
ONEHOT = Space((3,), np.dtype(np.float32), 0.0, 1.0, discrete=True)

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


def test_random_timesteps_are_what_a_replay_takes(tmp_path: Path):
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
    timesteps = random_timesteps(OBS, ONEHOT, 5, seed=0)
    assert set(timesteps) == set(batch) - {"action"}
    assert timesteps["image"].shape == (5, 64, 64, 3) and not timesteps["is_first"].any()


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
