"""One process of two that share a batch, as TF_CONFIG says; the chief compares with one device.

`python tests/host_checks.py`; prints JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from replica_checks import uneven, worst
from small_agent import CONTINUOUS, VECTORS, make_agent

from dreamer.agent import Agent
from dreamer.distribution.cluster import read_cluster
from dreamer.distribution.hosts import Hosts
from dreamer.distribution.opening import join_hosts

# Of the halves of the batch one has a smaller mean KL and one a larger, see replica_checks.
SETTINGS: dict[str, Any] = {"optimizer__clip": 1.0, "loss__free_nats": 3.0}


def digest(agent: Agent) -> str:
    """Of everything learnt, bit by bit."""
    arrays = agent.state_arrays()
    hashed = hashlib.sha256()
    for name in sorted(arrays):
        hashed.update(name.encode() + arrays[name].tobytes())
    return hashed.hexdigest()


def lead(devices: Hosts) -> dict[str, Any]:
    """Some updates, with weights that the other process can only have been told."""
    devices.introduce(VECTORS, CONTINUOUS)
    one, two = make_agent(**SETTINGS), make_agent(devices=devices, **SETTINGS)
    start = worst(one.state_arrays(), two.state_arrays())
    moved = {k: v * np.asarray(1.01, v.dtype) for k, v in one.state_arrays().items()}
    one.load_arrays(moved)
    two.load_arrays(moved)
    lines = []
    for number in range(4):
        batch = uneven(seed=number)
        metrics, other = one.train_step(batch, number), two.train_step(batch, number)
        lines.append((*worst(metrics, other), float(metrics["model_grad_norm"])))
    weights = worst(one.state_arrays(), two.state_arrays())
    batch["reward"][3, 2] = np.nan  # the worker's
    before = digest(two)
    skipped = float(two.train_step(batch, 4)["skipped"])
    devices.step = 77
    return {
        "start": start, "metrics": lines, "weights": weights, "digest": digest(two),
        "kept": digest(two) == before, "skipped": skipped,
    }  # fmt: skip


def follow(devices: Hosts) -> dict[str, Any]:
    """The same as a worker."""
    obs_space, act_space = devices.spaces()
    agent = make_agent(obs_space, act_space, devices=devices, **SETTINGS)
    ended = devices.follow(agent)
    return {"ended": ended, "digest": digest(agent)}


if __name__ == "__main__":
    cluster = read_cluster(os.environ)
    assert cluster is not None
    with join_hosts(cluster, 1, SETTINGS, {}) as hosts:
        found = lead(hosts) if hosts.leads else follow(hosts)
    print(json.dumps(found))
