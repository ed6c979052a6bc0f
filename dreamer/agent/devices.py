"""The devices that hold an agent's variables and run its updates: one, or several."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from dreamer.agent.learner import Learner
from dreamer.agent.precision import choose_jit
from dreamer.errors import UserError

CPUS = "DREAMER_CPU_DEVICES"
"""Environment variable: as how many devices the processor counts if there is no GPU. It makes
several devices testable without GPUs. They share the cores, so nothing gets faster."""

Batch = Mapping[str, np.ndarray]


class Devices:
    """Where an agent runs: on the device that TensorFlow chooses by itself.

    Attributes:
        count: Devices that share a batch.
    """

    count = 1

    def scope(self) -> contextlib.AbstractContextManager:
        """A context within which variables are made."""
        return contextlib.nullcontext()

    def choose_jit(self, asked: str) -> bool:
        """Whether updates are compiled with XLA; see `dreamer.agent.precision.choose_jit`."""
        return choose_jit(asked)

    def place(self, batch: Batch) -> dict[str, Any]:
        """Returns a batch [B, T, ...] as `compile`'s function takes it."""
        return {key: tf.convert_to_tensor(array) for key, array in batch.items()}

    def compile(self, learner: Learner, jit: bool) -> Any:
        """Returns the learner's update as a tf.function, of a placed batch and what else it takes.
        """
        return tf.function(learner.update, autograph=False, jit_compile=jit or None)


class SeveralDevices(Devices):
    """Several devices of this machine. Each has a copy of the variables and a share of the batch.

    Losses, gradients and metrics are averaged over the devices first; then all make the same
    check that they are finite, the same clipping and the same step. `dreamer.ops.replicas` has
    what losses need of the whole batch.

    Args:
        strategy: Of the devices of this machine.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self.count = strategy.num_replicas_in_sync
        self._strategy = strategy

    def __str__(self) -> str:
        names = [name.rpartition("device:")[2] for name in self._strategy.extended.worker_devices]
        return f"{self.count} devices: {', '.join(names)}"

    def scope(self) -> contextlib.AbstractContextManager:
        return self._strategy.scope()

    def choose_jit(self, asked: str) -> bool:
        """Never: XLA compiles for one device, and cannot reduce between several."""
        if asked == "on":
            raise ValueError(f"XLA cannot compile an update that {self.count} devices share")
        return False

    def place(self, batch: Batch) -> dict[str, Any]:
        """Gives each device its share of the sequences.

        Raises:
            ValueError: The sequences cannot be shared evenly.
        """
        size, rest = divmod(len(batch["action"]), self.count)
        if rest:
            raise ValueError(
                f"a batch of {len(batch['action'])} cannot be shared by {self.count} devices"
            )

        def share(array: np.ndarray) -> Any:
            def of(context: tf.distribute.ValueContext) -> tf.Tensor:
                index = context.replica_id_in_sync_group
                return tf.convert_to_tensor(array[index * size : (index + 1) * size])

            return self._strategy.experimental_distribute_values_from_function(of)

        return {key: share(array) for key, array in batch.items()}

    def compile(self, learner: Learner, jit: bool) -> Any:
        del jit

        def update(batch: dict[str, Any], number: tf.Tensor, exploring: bool) -> dict:
            def on_replica(share: dict[str, tf.Tensor]) -> Any:
                return learner.gradients(share, number, exploring)

            found = self._strategy.run(on_replica, args=(batch,))
            gradients, losses, metrics = tf.nest.map_structure(self._first, found)
            with self._strategy.scope():
                return metrics | learner.apply(gradients, losses)

        return tf.function(update, autograph=False)

    def _first(self, value: Any) -> tf.Tensor:
        """One replica's value, where all replicas have the same."""
        return self._strategy.experimental_local_results(value)[0]


def open_devices(asked: int, environment: Mapping[str, str]) -> SeveralDevices:
    """Opens the devices of this machine that share each batch.

    Args:
        asked: Number of devices; 0 takes all of them.
        environment: Environment variables, of which `CPUS` is read.
    Raises:
        UserError: The machine has fewer devices than asked for, or only one.
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
    """One strategy for each set of devices: two in one process would confuse their messages."""
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
