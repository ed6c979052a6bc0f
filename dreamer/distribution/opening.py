"""From what is asked for to the devices of a run."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from dreamer.distribution.cluster import Cluster
from dreamer.distribution.devices import SeveralDevices
from dreamer.distribution.hosts import Hosts
from dreamer.distribution.rendezvous import meet
from dreamer.errors import UserError

CPUS = "DREAMER_CPU_DEVICES"
"""Environment variable: as how many devices the processor counts where there is no GPU, to try
several devices without having them. They share its cores, so nothing gets faster."""


def join_hosts(
    cluster: Cluster, asked: int, facts: Mapping[str, Any], environment: Mapping[str, str]
) -> Hosts:
    """The devices of all hosts of a run, once all are there.

    Args:
        cluster: The hosts' processes.
        asked: Devices of each host; 0: all that there are.
        facts: What must be the same on all of them.
        environment: May have `CPUS`, by mistake.
    Raises:
        UserError: There are not so many devices, or not all processes come, started alike.
    """
    if environment.get(CPUS):
        raise UserError(
            f"{CPUS} and TF_CONFIG are both set, but on several hosts the processor counts as one "
            f"device; unset {CPUS}"
        )
    gpus = tf.config.list_physical_devices("GPU")
    most = len(gpus) or 1
    if asked > most:
        raise UserError(
            f"train.devices is {asked}, but this host has {len(gpus)} GPUs for TensorFlow; give at "
            f"most {most} (it counts each host's)"
        )
    count = asked or most
    if gpus:
        tf.config.set_visible_devices(gpus[:count], "GPU")
    facts = {**facts, "devices of each host": count, "with GPUs": bool(gpus)}
    meet(cluster, facts, print)
    return Hosts(cluster)


def open_devices(asked: int, environment: Mapping[str, str]) -> SeveralDevices:
    """Devices of this host, which are to share the batches.

    Args:
        asked: How many; 0: all that there are.
        environment: May have `CPUS`.
    Raises:
        UserError: There are not so many, or only one.
    """
    found = _find(environment)
    if asked > len(found) or len(found) == 1:
        wanted = f"{asked}" if asked else "0, which is all there are"
        raise UserError(
            f"train.devices is {wanted}, but TensorFlow finds {len(found)}: {', '.join(found)}; "
            f"give 1, or see why nvidia-smi or CUDA_VISIBLE_DEVICES show no more GPUs (to try it "
            f"without GPUs: {CPUS}=2 in the environment)"
        )
    return SeveralDevices(_mirrored(tuple(found[: asked or None])))


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """One for each set of devices: two in one process would confuse their messages."""
    return tf.distribute.MirroredStrategy(devices)


def _find(environment: Mapping[str, str]) -> list[str]:
    """Names of the devices: GPUs if there are any."""
    text = environment.get(CPUS, "")
    if text:
        _divide_processor(text)
    logical = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [f"{device.device_type}:{i}" for i, device in enumerate(logical)]


def _divide_processor(text: str) -> None:
    if not (text.isdecimal() and 0 < int(text) <= 64):
        raise UserError(f"{CPUS} is {text!r}; expected a number from 1 to 64")
    if tf.config.list_physical_devices("GPU"):
        raise UserError(
            f"{CPUS} is set, which is for trying things without GPUs, but there are some: unset "
            "it, or hide them with CUDA_VISIBLE_DEVICES=-1"
        )
    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * int(text)
    try:
        tf.config.set_logical_device_configuration(cpu, parts)
    except RuntimeError:  # TensorFlow is in use already, as after an earlier training
        if len(tf.config.list_logical_devices("CPU")) != int(text):
            raise UserError(
                f"{CPUS} is {text}, but TensorFlow is in use already with another number: begin "
                "a new process"
            ) from None
