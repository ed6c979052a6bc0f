"""The benchmark's services, the order of measurements, and replays of random episodes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from mmap import mmap
from pathlib import Path

import numpy as np
import pytest

from dreamer.benchmarks.services import (
    RandomReplay,
    Service,
    in_turn,
    random_timesteps,
    resident_bytes,
)
from dreamer.benchmarks.table import judge
from dreamer.config.config import load_config
from dreamer.data.replay import Replay
from dreamer.envs.spec import Space
from dreamer.errors import UserError
from dreamer.system.children import ChildError

ECHO = "benchmark_services:Echo"
OBS = {
    "image": Space((64, 64, 3), np.dtype(np.uint8), 0, 255),
    "speed": Space((2,), np.dtype(np.float32)),
}
ONEHOT = Space((3,), np.dtype(np.float32), 0.0, 1.0, discrete=True)

# ---------------------------------------------------------------------- services


@pytest.fixture(scope="module")
def echo() -> Iterator[Service]:
    with Service(ECHO, greeting="hello") as service:
        yield service


def test_a_service_answers_from_a_process_of_its_own_and_survives_errors(echo: Service):
    assert echo.ask("say", name="you") == {"said": "hello you"}
    assert "tensorflow" not in echo.ask("modules")
    assert echo.ask("pid") != os.getpid()
    with pytest.raises(ChildError, match="something went wrong"):
        echo.ask("fail")
    assert echo.ask("say", name="again") == {"said": "hello again"}


def test_a_death_is_reported_with_the_last_output_and_leaves_no_process():
    with Service(ECHO, greeting="hi") as service:
        pid = service.ask("pid")
        with pytest.raises(ChildError, match="(?s)exit status 3.*last words"):
            service.ask("die")
    assert not Path(f"/proc/{pid}").exists()


def test_user_errors_stay_user_errors():
    with pytest.raises(UserError, match="needs a greeting"):
        Service(ECHO, greeting="")


# ------------------------------------------------------------------ measurements


def test_measurements_take_turns():
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
    seconds = iter([100.0, 1.0, 3.0, 50.0, 2.0])  # the median counts, not the mean
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


def test_random_timesteps_are_what_a_replay_takes_and_samples(tmp_path: Path):
    replay = Replay(tmp_path, cache_bytes=0, seed=0, obs_space=OBS, act_space=ONEHOT)
    replay.add(random_timesteps(OBS, ONEHOT, (9,), seed=0), "one")
    sampled = replay.sample(0, 2, 4)
    batch = random_timesteps(OBS, ONEHOT, (2, 4), seed=0)
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
        k: (v.shape, v.dtype) for k, v in sampled.items()
    }
    assert np.array_equal(batch["action"].sum(-1), np.ones((2, 4)))
    assert batch["image"].max() > 200
    assert np.array_equal(batch["is_first"], [[True, False, False, False]] * 2)
    assert np.array_equal(batch["is_last"], [[False, False, False, True]] * 2)


def test_a_replay_counts_what_it_takes_in(tmp_path: Path):
    service = RandomReplay(load_config("debug"), (OBS, ONEHOT), str(tmp_path))
    found = service.add(episodes=5, length=9)
    episode = random_timesteps(OBS, ONEHOT, (9,), seed=0)
    assert found["added_bytes"] == 5 * sum(array.nbytes for array in episode.values())
    assert found["episodes"] == 5 and found["resident_bytes"] > 0
    service.sample()
    assert len(list(tmp_path.glob("*.npz"))) == 5


def test_resident_memory_is_in_bytes():
    # A mapping of its own, since NumPy could be given pages that this process already holds; and
    # a large one, since TensorFlow's threads take and give back some 30 MB meanwhile.
    with mmap(-1, 400_000_000) as block:
        before = resident_bytes()
        block[::4096] = b"1" * len(block[::4096])
        assert 300e6 < resident_bytes() - before < 500e6
