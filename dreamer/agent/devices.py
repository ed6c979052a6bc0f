"""The devices that hold an agent's variables and run its updates: one, or several."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from dreamer.agent.learner import Learner
from dreamer.errors import UserError
from dreamer.ops.scan import rolled_loops

CPUS = "DREAMER_CPU_DEVICES"
"""Environment variable: how many devices to make of the processor if there is no GPU, for tests."""


class Devices:
    """The devices that an agent runs on. Each has a copy of the variables and a share of the batch.

    Losses, gradients and metrics are averaged over the devices first; then all make the same
    check that they are finite, the same clipping and the same step. `dreamer.ops.replicas` has
    what losses need of the whole batch.

    Args:
        strategy: The strategy of several local devices; None: one device, TensorFlow's choice.

    Attributes:
        count: Devices that share a batch.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None):
        self.strategy: Any = strategy
        self.count = strategy.num_replicas_in_sync if strategy else 1

    def __str__(self) -> str:
        """The names of several devices."""
        devices = self.strategy.extended.worker_devices
        names = [name.rpartition("device:")[2] for name in devices]
        return f"{self.count} devices: {', '.join(names)}"

    def scope(self) -> contextlib.AbstractContextManager:
        """A context within which variables are made."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def place(self, batch: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Returns a batch [B, T, ...] as `compile`'s function takes it: in shares of sequences."""
        if not self.strategy:
            return {key: tf.convert_to_tensor(array) for key, array in batch.items()}
        size = len(batch["action"]) // self.count

        def share(context: tf.distribute.ValueContext) -> dict[str, tf.Tensor]:
            first = context.replica_id_in_sync_group * size
            return {k: tf.convert_to_tensor(x[first : first + size]) for k, x in batch.items()}

        return self.strategy.experimental_distribute_values_from_function(share)

    def compile(self, learner: Learner, jit: bool) -> Any:
        """Returns the learner's update as a tf.function; its first argument is a placed batch."""
        if not self.strategy:

            def whole(batch: dict[str, tf.Tensor], number: tf.Tensor, *phase: bool) -> dict:
                with rolled_loops(jit):
                    return learner.update(batch, number, *phase)

            return tf.function(whole, autograph=False, jit_compile=jit or None)

        def update(batch: dict[str, Any], number: tf.Tensor, *phase: bool) -> dict:
            def on_replica(share: dict[str, tf.Tensor]) -> Any:
                return learner.gradients(share, number, *phase)

            found = self.strategy.run(on_replica, args=(batch,))
            gradients, losses, metrics = tf.nest.map_structure(self.first, found)
            with self.strategy.scope():
                return metrics | learner.apply(gradients, losses, number)

        return tf.function(update, autograph=False)

    def first(self, value: Any) -> tf.Tensor:
        """One replica's value, where all replicas have the same."""
        return self.strategy.experimental_local_results(value)[0]


def open_devices(asked: int, environment: Mapping[str, str]) -> Devices:
    """Opens the devices of this machine that share each batch.

    Args:
        asked: Number of devices; 0 takes all of them.
        environment: Environment variables, of which `CPUS` is read.
    Raises:
        UserError: The machine has fewer devices than asked for, or only one.
    """
    if text := environment.get(CPUS):
        _divide_processor(text)
    logical = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    found = [f"{device.device_type}:{i}" for i, device in enumerate(logical)]
    if asked > len(found) or len(found) == 1:
        wanted = f"{asked}" if asked else "0, which is all there are"
        raise UserError(
            f"train.devices is {wanted}, but TensorFlow finds {len(found)}: {', '.join(found)}; "
            f"give 1, or see why nvidia-smi or CUDA_VISIBLE_DEVICES show no more GPUs (to try it "
            f"without GPUs: {CPUS}=2 in the environment)"
        )
    return Devices(_mirrored(tuple(found[: asked or None])))


# One strategy for each set of devices: two in one process would confuse their messages.
_mirrored = functools.cache(tf.distribute.MirroredStrategy)


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
    # A program that trains again in one process has divided the processor before.
    if tf.config.get_logical_device_configuration(cpu) != parts:
        tf.config.set_logical_device_configuration(cpu, parts)
