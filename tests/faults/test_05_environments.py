"""5. Environments that raise, die, hang or return nonsense cost their episode and nothing else."""

import os
import resource
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fault_runs
import numpy as np
import pytest
from counting_env import decode, episode_length
from fault_runs import (
    COUNTING,
    FAULTY,
    TESTS,
    Figure,
    config_for,
    each_agent,
    newest,
    run,
    run_of,
    words_for,
)
from faulty_env import KINDS, faulty_step
from whole_runs import metrics_of

from dreamer.data.episodes import EpisodeFile
from dreamer.envs.processes.pool import EnvError, EnvPool, EnvRestartWarning
from dreamer.training.build import open_pools
from dreamer.training.collector import Collector, episode_seed

Arrays = dict[str, np.ndarray]
SetFaults = Callable[..., None]


def constant(timesteps: Arrays, state: Any) -> tuple[np.ndarray, None]:
    return np.full((len(timesteps["reward"]), 2), 0.5, np.float32), None


def check_episode(episode: Arrays, number: int, seed: int = 5) -> None:
    """The episode is whole and all its timesteps are its own."""
    assert len(episode["reward"]) == episode_length(episode_seed(seed, number)) + 1
    for step, image in enumerate(episode["image"]):
        assert decode(image)[:2] == (episode_seed(seed, number), step)
    assert all(np.isfinite(value).all() for value in episode.values())


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> SetFaults:
    """Says how probable faults are at a step, and of which kinds."""

    def set_faults(probability: float | str, *kinds: str) -> None:
        monkeypatch.setenv("DREAMER_TEST_FAULTS", str(probability))
        monkeypatch.setenv("DREAMER_TEST_KINDS", ",".join(kinds or KINDS))

    return set_faults


def hostile_steps(probability: float, agent_steps: int) -> Collector:
    """Collects with two workers; checks every episode, and that the right ones were dropped."""
    kept: dict[int, Arrays] = {}
    with EnvPool(FAULTY, 2, 120.0, 16, state=True) as pool:
        collector = Collector(pool, lambda episode, number: kept.update({number: episode}), 5)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            collector.collect(constant, agent_steps)
        assert pool.failures == collector.dropped
    said = [w for w in caught if issubclass(w.category, EnvRestartWarning)]
    assert len(said) == collector.dropped
    under_way = [e["number"] for e in collector.state()["under_way"] if e]
    begun = set(range(collector.next_episode)) - set(under_way)
    assert set(kept) == {n for n in begun if faulty_step(episode_seed(5, n)) is None}
    assert collector.dropped == len(begun) - len(kept)
    for number, episode in kept.items():
        check_episode(episode, number)
    return collector


@pytest.mark.parametrize(
    ("probability", "agent_steps"),
    [(0.03, 240), pytest.param(0.001, 60_000, marks=pytest.mark.faults)],
)
def test_a_crash_costs_only_its_episode(
    faults: SetFaults, figure: Figure, probability: float, agent_steps: int
):
    faults(probability)
    collector = hostile_steps(probability, agent_steps)
    assert collector.dropped >= 3
    figure(
        f"crash probability {probability} a step, {agent_steps} steps, {len(KINDS)} kinds: "
        f"{collector.dropped} episodes lost to {collector.dropped} crashes, "
        f"{collector.episodes} whole"
    )


@pytest.mark.parametrize(
    "fault",
    [k if k in ("nan", "shape") else pytest.param(k, marks=pytest.mark.faults) for k in KINDS],
)
@pytest.mark.parametrize("alone", [True, False])
def test_one_that_always_fails_is_given_up_after_so_many_restarts(faults: SetFaults, fault, alone):
    """Also as one of several tasks: the others' episodes do not reset its count of failures."""
    faults("always", fault)
    numbers: list[int] = []
    with EnvPool(
        FAULTY if alone else f"{COUNTING},{FAULTY}", 2 - alone, 120.0, 1, state=True
    ) as pool:
        collector = Collector(pool, lambda episode, number: numbers.append(number), 0)
        given_up = pytest.raises(EnvError, match="2 failures without an episode completed")
        with pytest.warns(EnvRestartWarning, match="failure 1, 1 in a row"), given_up as caught:
            collector.collect(constant, 40)
        assert pool.failures == 2 and collector.dropped == 1
        assert len(caught.value.advice) > 20 and caught.value.index == (not alone)
        with pytest.raises(RuntimeError, match="closed"):
            pool.reset([0])
    # Three steps of the other one, the failures being of the second and the fourth.
    assert numbers == ([] if alone else [0])


def test_one_that_hangs_is_replaced(faults: SetFaults):
    faults("always", "hang")
    with EnvPool(FAULTY, 1, 10.0, 1, state=True) as pool:
        pool.reset([0])
        (timestep,) = pool.step(np.zeros((1, 2), np.float32))
        with pytest.warns(EnvRestartWarning, match="timed out: no reply within 10 s"):
            (outcome,) = pool.step(np.zeros((1, 2), np.float32))
        assert not isinstance(timestep, EnvError) and isinstance(outcome, EnvError)
        (timestep,) = pool.reset([3])
        assert not isinstance(timestep, EnvError) and decode(timestep["image"])[:2] == (3, 0)


def test_a_replacement_for_which_there_is_no_room_is_tried_again(faults: SetFaults):
    faults("always", "raise")
    with EnvPool(FAULTY, 1, 120.0, 3, state=True) as pool:
        (timestep,) = pool.reset([0])
        assert not isinstance(timestep, EnvError)
        with pytest.warns(EnvRestartWarning, match="physics went wrong"):
            for _ in range(2):
                pool.step(np.zeros((1, 2), np.float32))
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        opened = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        try:
            with pytest.warns(EnvRestartWarning, match="did not start.*Too many open files"):
                outcomes = pool.reset([1]) + pool.reset([2])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert all(isinstance(outcome, EnvError) for outcome in outcomes) and pool.failures == 3
        assert len(os.listdir("/proc/self/fd")) <= opened
        (timestep,) = pool.reset([3])
        assert not isinstance(timestep, EnvError) and decode(timestep["image"])[:2] == (3, 0)


def test_evaluations_have_their_number_of_episodes_all_the_same(faults: SetFaults):
    faults("0.05")
    with EnvPool(FAULTY, 2, 120.0, 16, state=True) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collector = Collector(pool, check_episode, 5)
        summaries = collector.collect_episodes(constant, 8)
    sound = [n for n in range(40) if faulty_step(episode_seed(5, n)) is None]
    assert collector.dropped > 0
    assert [summary.number for summary in summaries] == sound[:8]


@each_agent
def test_the_run_ends_with_the_workers_traceback_and_what_to_check(
    tmp_path: Path, figure: Figure, agent: str
):
    words = words_for(tmp_path, FAULTY, **{"envs.restarts": 1})
    faults = {"DREAMER_TEST_FAULTS": "always", "DREAMER_TEST_KINDS": "raise"}
    status, output, errors = run(words, agent=agent, **faults)
    assert status == 70, errors
    assert output.count("its episode is dropped and it is started again") == 2
    assert "faulty_env.py" in errors and "ZeroDivisionError: physics went wrong" in errors
    assert "check the place it names" in errors.splitlines()[-1]
    # What had been done is saved all the same.
    assert newest(run_of(tmp_path))[2]["dropped"] == 2
    figure("an environment that always fails ends the run with its traceback, exit status 70")


def test_a_run_that_collected_nothing_begins_anew_and_needs_no_picture(tmp_path: Path):
    """A reset that is wrong; then, with another config, vectors without any render()."""
    file, source = tmp_path / "mine.py", (TESTS / "envs" / "real_envs.py").read_text()
    values = {"encoder.keys": None, "decoder.keys": None}
    file.write_text(f"{source}\n\nmake = WrongReset\n")
    words = words_for(tmp_path, f"{file}:make", **values)
    status, output, errors = run(words, agent="numpy")
    assert status == 70 and "NotImplementedError" in errors and "3 failures" in errors, errors
    assert output.count("raised: NotImplementedError; its episode is dropped") == 4
    file.write_text(f"{source}\n\nmake = Blind\n")
    words = words_for(tmp_path, f"{file}:make", **values, **{"train.every": 40})
    status, output, errors = run(words, agent="numpy")
    assert status == 0, errors
    assert "had collected nothing yet begins anew" in output
    assert output.count("the agent learns without images, from observation") == 1


def test_an_environment_that_can_exist_once_is_evaluated_between_rounds(tmp_path: Path):
    file = Path(shutil.copy(TESTS / "envs" / "real_envs.py", tmp_path))
    values = {"encoder.keys": None, "decoder.keys": None, "envs.num_envs": 1}
    config = config_for(tmp_path, f"{file}:Alone", **{"envs.num_envs": 1})
    with pytest.raises(EnvError, match="set eval.num_envs to 0"), open_pools(config):
        pass
    words = words_for(tmp_path, f"{file}:Alone", **{**values, "eval.num_envs": 0})
    status, _, errors = run(words, agent="numpy")
    assert status == 0, errors
    path = run_of(tmp_path)
    lines = metrics_of(path)
    # Evaluations are of whole episodes; the training episodes that they cut are kept, unscored.
    assert [m["eval/return"] for m in lines if "eval/return" in m] == [20.0] * 4
    assert all(m["train/return"] == 20.0 for m in lines if "train/return" in m)
    lengths = [EpisodeFile(p).length - 1 for p in (path / "episodes").glob("*.npz")]
    assert sum(lengths) == newest(path)[2]["agent_steps"] == 200 and min(lengths) < 20
    words = words_for(tmp_path, f"{file}:Alone", **{**values, "eval.num_envs": 0, "steps": 230})
    status, output, errors = run(words, agent="numpy")
    assert status == 0 and "resumed at step 200" in output, errors


@pytest.mark.faults
def test_a_run_with_crashing_environments_reaches_its_end(tmp_path: Path, figure: Figure):
    words = words_for(tmp_path, FAULTY, steps=4000)
    status, _, errors = run(words, DREAMER_TEST_FAULTS="0.01")
    assert status == 0, errors
    path = run_of(tmp_path)
    _, _, state = newest(path)
    under_way = sum(e is not None for e in state["collector"]["under_way"])
    assert len(fault_runs.episodes_of(path)) == state["next_episode"] - state["dropped"] - under_way
    assert metrics_of(path)[-1]["dropped_episodes"] == state["dropped"] > 0
    figure(f"a whole run at 0.01 a step: {state['dropped']} of {state['next_episode']} dropped")
