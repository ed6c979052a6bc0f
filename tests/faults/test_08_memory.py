"""8. Memory stays flat and TensorFlow traces a bounded number of times, however long a run is."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from episode_samples import file_arrays, make_episode
from fault_runs import TESTS, Figure, python
from whole_runs import finish

from dreamer.data.replay import Replay
from dreamer.envs.spec import Space

IMAGE = {"image": Space((64, 64, 3), np.dtype(np.uint8))}
CURTAIN = f"{TESTS}/curtain_env.py:make"

# Two thirds of everything warm up; what the third adds is the answer.
# What Python and NumPy hold is known to the byte, so that one episode kept of many, or one answer
# of the policy, does not hide in what allocators do; the process's size is that of all the rest.
SCRIPT = """
import ctypes, gc, json, resource, sys, tracemalloc
import numpy as np
from dreamer import train
from dreamer.training.collector import Collector
from dreamer.envs.processes.pool import EnvPool
from dreamer.training.reports import Evaluator
from dreamer.training.reports import Reporter
from curtain_env import LENGTH
from fault_runs import config_for

calls, episodes, evaluations, steps = map(int, sys.argv[1:5])
task, logdir = sys.argv[5:]
found, marks, agents = {}, [], set()

def memory():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # gives free memory back, so that the size excludes it
    pages = int(open("/proc/self/statm").read().split()[1])
    return np.array([tracemalloc.get_traced_memory()[0], pages * resource.getpagesize()])

def note(name, grown, times):
    found[name] = {"held": int(grown[0]), "size": int(grown[1]), "times": times}

def growth(name, act, amount):
    act(amount // 3)
    tracemalloc.start()  # not before, as it would slow the tracing of graphs
    act(amount // 3)
    before = memory()
    act(amount // 3)
    note(name, memory() - before, amount // 3)
    tracemalloc.stop()

class Watched(Reporter):
    def __init__(self, agent, *parts):
        super().__init__(agent, *parts)
        agents.add(agent)

    def report(self, step, policy, counters, final):
        super().report(step, policy, counters, final)
        if not marks:
            tracemalloc.start()
        marks.append((counters["episodes"], memory()))

import dreamer.training.build
dreamer.training.build.Reporter = Watched
every = {"log.every": steps // 6, "eval.every": steps // 6, "train.updates": 1}
images = {"encoder.keys": "image", "decoder.keys": "image"}
train(config_for(logdir, task, steps=steps, **every, **images))
(first, before), (last, after) = marks[2 * len(marks) // 3 - 1], marks[-1]
note("episodes of training", after - before, last - first)
tracemalloc.stop()
(agent,) = agents
state = None

def policy(timesteps, state):
    return agent.policy(timesteps, state, "eval")

with EnvPool(task, 2, 120.0, state=True) as pool:
    reset = pool.reset([0, 1])
    timesteps = {key: np.stack([timestep[key] for timestep in reset]) for key in reset[0]}

    def act(count):
        global state
        for _ in range(count):
            _, state = agent.policy(timesteps, state)

    growth("policy calls", act, calls)
    collector = Collector(pool, lambda episode, number: None, 0)
    idle = lambda timesteps, state: (np.zeros((2, 1), np.float32), None)
    growth("episodes", lambda count: collector.collect(idle, LENGTH * count), episodes)
with EnvPool(task, 1, 120.0, state=True) as pool:
    evaluator = Evaluator(pool, seed=0, episodes=2, shown=1)
    def evaluate(count):
        for _ in range(count):
            evaluator.run(policy)
    growth("evaluations", evaluate, evaluations)
traces = {"update": agent._update.experimental_get_tracing_count(),
          "policy": agent._act.experimental_get_tracing_count()}
print(json.dumps({"growth": found, "traces": traces}))
"""


# Bytes that may be held for each, besides SLACK for all: of an episode of training what the replay
# knows of its file. Whatever were kept of each would be more: an episode is 130 kB of images, and
# the least that a call of the policy could leave, a number, 32 bytes, which the long form sees.
MAY_HOLD = {"policy calls": 5, "episodes": 100, "evaluations": 100, "episodes of training": 5000}
SLACK = 35_000
# Calls, episodes, evaluations, steps of training: of the long form the last third alone is 5,000,
# 1,000 and 200 of them, and 1,100 episodes of training. At the short form's marks (80 and 120
# steps) no episode is under way, the timesteps of which would be held, too.
SHORT, LONG = (1500, 30, 6, 120), (15_000, 3000, 600, 33_000)


@pytest.mark.parametrize(
    "amounts",
    [pytest.param(SHORT, marks=pytest.mark.slow), pytest.param(LONG, marks=pytest.mark.faults)],
)
def test_memory_is_flat_and_tracing_bounded(tmp_path: Path, figure: Figure, amounts):
    words = [*map(str, amounts), CURTAIN, tmp_path]
    # One arena for all of TensorFlow's threads: a new arena would look like growth.
    process = python("-c", SCRIPT, *words, MALLOC_ARENA_MAX="1")
    status, output, errors = finish(process, timeout=3600)
    assert status == 0, errors
    found = json.loads(output.splitlines()[-1])
    # Training and evaluation, each once, and the first call, which has no state yet.
    assert found["traces"]["update"] == 1 and found["traces"]["policy"] <= 3
    growth = found["growth"]
    assert growth.keys() == MAY_HOLD.keys()
    for key, most in MAY_HOLD.items():
        assert growth[key]["held"] < SLACK + most * growth[key]["times"], (key, growth)
    assert all(grown["size"] < 20e6 for grown in growth.values()), growth
    held = ", ".join(f"{v['held'] / 1e3:.1f} kB over {v['times']} {k}" for k, v in growth.items())
    size = max(value["size"] for value in growth.values())
    figure(
        f"{amounts[0]} policy calls, {amounts[1]} episodes, {amounts[2]} evaluations, "
        f"{amounts[3]} steps of training: the last third holds {held} more, and the process has "
        f"grown by {size / 1e6:.1f} MB at most; traces: {found['traces']}"
    )


def test_the_replays_limit_holds(tmp_path: Path, figure: Figure):
    """Compressed files of older versions are unpacked whole; others are read piece by piece."""
    for number in range(40):
        episode = make_episode(50, number, size=64)
        episode["image"][:] = number  # quickly packed
        np.savez_compressed(tmp_path / episode_name(number), **file_arrays(episode))
    limit, whole = 5_000_000, 40 * 50 * 64 * 64 * 3
    replay = Replay(
        tmp_path, cache_bytes=limit, seed=0, obs_space=IMAGE,
        act_space=Space((2,), np.dtype(np.float32), -1.0, 1.0),
    )  # fmt: skip
    held = []
    tracemalloc.start()
    try:
        for index in range(50):
            replay.sample(index, 4, 10)
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert 0.8 * limit < max(held) < 1.1 * limit < 0.3 * whole
    figure(
        f"of {whole / 1e6:.0f} MB of compressed episodes the replay holds up to "
        f"{max(held) / 1e6:.1f} MB, its limit being {limit / 1e6:.0f}"
    )


def episode_name(number: int) -> str:
    return f"20200101T000000-{number:032x}-50.npz"
