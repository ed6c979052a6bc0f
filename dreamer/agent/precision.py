"""Which number format and compiler suit the device (docs/devices.md, docs/speed.md)."""

from __future__ import annotations

import keras
import tensorflow as tf

from dreamer.system.machine import processor_flags


def choose_precision(asked: str) -> str:
    """Resolves ``auto`` to float32, bfloat16 or float16 for the device at hand.

    GPUs from compute capability 8.0 on multiply bfloat16 at full rate and need no loss scaling;
    7.x have tensor cores for float16 only. CPUs multiply bfloat16 faster where they have
    instructions for it, and float16 never.
    """
    if asked != "auto":
        return asked
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "bfloat16" if cpu_has_bfloat16() else "float32"
    capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0,))
    if capability[0] >= 8:
        return "bfloat16"
    return "float16" if capability[0] == 7 else "float32"


def cpu_has_bfloat16() -> bool:
    """Whether the processor has instructions that multiply bfloat16."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(processor_flags().split())


def choose_jit(asked: str) -> bool:
    """Resolves ``auto``: XLA on GPUs, none on CPUs, where it runs several times slower."""
    return bool(tf.config.list_physical_devices("GPU")) if asked == "auto" else asked == "on"


def dtype_policy(precision: str) -> keras.DTypePolicy:
    """Computes in the given format, with float32 variables."""
    return keras.DTypePolicy("float32" if precision == "float32" else f"mixed_{precision}")
