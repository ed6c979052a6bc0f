"""The part of the main job that concerns several devices: which a config and TF_CONFIG ask for."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import dreamer
from dreamer.combinations import check_devices
from dreamer.config import Config
from dreamer.distribution.cluster import VARIABLE, read_cluster
from dreamer.errors import UserError
from dreamer.rundir import run_path
from dreamer.schema import DREAMER
from dreamer.streams import say

if TYPE_CHECKING:
    from dreamer.distribution.devices import SeveralDevices
    from dreamer.run import Result

_OWN = ("logdir", "log.terminal", "log.sinks")  # keys that each host may have its own way


def make_devices(config: Config) -> SeveralDevices | None:
    """The devices that share the updates of a run; None where one makes them.

    Raises:
        UserError: They cannot be had, or cannot share what the config asks for.
    """
    cluster = read_cluster(os.environ)
    if config.agent != DREAMER:
        if cluster:
            raise UserError(
                f"{VARIABLE} names several hosts, but the agent {config.agent} trains on one "
                f"device; unset {VARIABLE}"
            )
        return None
    asked = config.train.devices
    if asked == 1 and cluster is None:
        return None
    hosts = len(cluster.addresses) if cluster else 1
    check_devices(hosts * (asked or 1), config.train.batch_size, config.jit)
    from dreamer.device import prepare_tensorflow

    prepare_tensorflow(config.deterministic)  # before anything imports it
    from dreamer.distribution.opening import join_hosts, open_devices

    devices: SeveralDevices
    if cluster:
        devices = join_hosts(cluster, asked, _facts(config), os.environ)
    else:
        devices = open_devices(asked, os.environ)
    check_devices(devices.count, config.train.batch_size, config.jit)
    return devices


def _facts(config: Config) -> dict[str, Any]:
    """What must be the same on all hosts."""
    import tensorflow as tf

    from dreamer.precision import choose_precision

    flat = {key: value for key, value in config.flat().items() if key not in _OWN}
    versions = {"dreamer": dreamer.__version__, "tensorflow": tf.__version__}
    return {**flat, **versions, "precision": choose_precision(config.precision)}


def follow(config: Config, devices: SeveralDevices) -> Result:
    """Makes the updates of a run on a worker, which has no environments and writes nothing.

    Returns:
        Where the run lies on the chief's host, the step at which it ended, and the updates.
    Raises:
        UserError: The chief, or another worker, ended before that.
    """
    from dreamer.distribution.hosts import Hosts, HostsAgent
    from dreamer.run import Result, make_agent

    assert isinstance(devices, Hosts), "only hosts that do not lead follow"
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            # It has nothing to save, and waits where Python's handlers are not called.
            signal.signal(number, signal.SIG_DFL)
    with devices:
        agent = make_agent(config, *devices.spaces(), devices=devices)
        assert isinstance(agent, HostsAgent)
        say(f"every batch is shared by {devices}; precision {agent.precision}")
        step, updates = devices.follow(agent)
    return Result(run_path(config), step, updates, None)
