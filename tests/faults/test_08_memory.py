"""8. Memory stays flat and TensorFlow traces a bounded number of times, however long it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from fault_runs import COUNTING, python

# Half of everything warms up; what the second half adds in memory is the answer.
SCRIPT = """
import gc, json, resource, sys
import numpy as np
import small_agent
from dreamer.collect import Collector
from dreamer.envs.pool import EnvPool
from dreamer.evaluation import Evaluator
from counting_env import CountingEnv

def memory():
    gc.collect()
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * resource.getpagesize()

def growth(act, amount):
    act(amount // 2)
    before = memory()
    act(amount - amount // 2)
    return memory() - before

calls, episodes, evaluations = map(int, sys.argv[1:4])
vector = {"vector": CountingEnv.obs_space["vector"]}
agent = small_agent.make_agent(vector, CountingEnv.act_space)
found, state = {}, None

def act(count):
    global state
    records = small_agent.make_records(vector, 2, first=False)
    for _ in range(count):
        _, state = agent.policy(records, state)

def policy(records, state):
    return agent.policy({k: records[k] for k in ("vector", "is_first")}, state, "eval")

found["policy calls"] = growth(act, calls)
with EnvPool(sys.argv[4], 2, 120.0) as pool:
    collector = Collector(pool, lambda episode, number: None, 0)
    random = lambda records, state: (np.zeros((2, 2), np.float32), None)
    def collect(count):
        end = collector.episodes + count
        while collector.episodes < end:
            collector.collect(random, 20)
    found["episodes"] = growth(collect, episodes)
with EnvPool(sys.argv[4], 2, 120.0) as pool:
    evaluator = Evaluator(pool, seed=0, episodes=2, filmed=1)
    def evaluate(count):
        for _ in range(count):
            evaluator.run(policy)
    found["evaluations"] = growth(evaluate, evaluations)
batch = small_agent.make_batch(vector, CountingEnv.act_space)
agent.trace(batch)
for update in range(10):
    agent.train_step(batch, update)
traces = {"update": agent._update.experimental_get_tracing_count(),
          "policy": agent._act.experimental_get_tracing_count()}
print(json.dumps({"growth": found, "traces": traces}))
"""


@pytest.mark.parametrize(
    ("calls", "episodes", "evaluations"),
    [(200, 40, 4), pytest.param(5000, 1000, 200, marks=pytest.mark.faults)],
)
def test_memory_is_flat_and_tracing_bounded(
    figure: Callable[[str], None], calls: int, episodes: int, evaluations: int
):
    done = python(SCRIPT, str(calls), str(episodes), str(evaluations), COUNTING)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    # Training and evaluation, each once, and the first call, which has no state yet.
    assert found["traces"]["update"] == 1 and found["traces"]["policy"] <= 3
    assert all(grown < 20e6 for grown in found["growth"].values()), found
    grown = ", ".join(f"{value / 1e6:.1f} MB over {k}" for k, value in found["growth"].items())
    figure(
        f"{calls} policy calls, {episodes} episodes, {evaluations} evaluations: second half adds "
        f"{grown}; traces: {found['traces']}"
    )
