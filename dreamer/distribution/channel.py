"""Messages from the chief to all workers, as collective broadcasts between their processors.

A message is a JSON header and raw arrays, as between a pool and its environments, in words of 32
bits; its number of words goes before it. Whichever devices learn, it goes from host memory to host
memory, so that batches of any type need no GPU for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

_GROUP = 1_000_003  # tf.distribute numbers its own groups from 1 on
_PAD = 256  # words: few different sizes, as TensorFlow remembers each
_KINDS = "biuf"  # NumPy's kinds of numbers


class Channel:
    """One chief speaks, all others listen.

    Args:
        processes: How many there are.
        speaks: Whether this one is the chief.
    """

    def __init__(self, processes: int, speaks: bool):
        self._processes, self.speaks = processes, speaks
        spec = [tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int32)]
        self._send = tf.function(self._broadcast, input_signature=spec, autograph=False)
        self._receive = tf.function(self._listen, input_signature=spec, autograph=False)

    def send(self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Sends one message to all; waits until they have taken it.

        Raises:
            tensorflow.errors.OpError: One of them is gone.
        """
        words = encode(header, arrays)
        self._send(tf.constant([len(words)], tf.int32), 1)
        self._send(tf.constant(words), len(words))

    def receive(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Waits for one message, as long as the chief lives; returns its header and arrays.

        Raises:
            tensorflow.errors.OpError: The chief, or another, is gone.
        """
        count = int(self._receive(tf.constant([1]), 1)[0])
        return decode(self._receive(tf.constant([count]), count).numpy())

    def _broadcast(self, words: tf.Tensor, instance: tf.Tensor) -> tf.Tensor:
        with tf.device("CPU:0"):
            return tf.raw_ops.CollectiveBcastSendV2(
                input=words, group_size=self._processes, group_key=_GROUP, instance_key=instance
            )

    def _listen(self, shape: tf.Tensor, instance: tf.Tensor) -> tf.Tensor:
        # One instance has one shape for good: hence one for each number of words.
        with tf.device("CPU:0"):
            return tf.raw_ops.CollectiveBcastRecvV2(
                group_size=self._processes, group_key=_GROUP, instance_key=instance,
                shape=shape, T=tf.int32,
            )  # fmt: skip


def encode(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """A message as int32 words: the header's length in bytes, the header, the arrays, zeros."""
    values = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    described = [[name, value.dtype.str, value.shape] for name, value in values.items()]
    text = json.dumps({**header, "arrays": described}).encode()
    size = 4 + len(text) + sum(value.nbytes for value in values.values())
    data = np.zeros(math.ceil(size / (4 * _PAD)) * 4 * _PAD, np.uint8)
    data[:4] = np.frombuffer(np.uint32(len(text)).tobytes(), np.uint8)
    data[4 : 4 + len(text)] = np.frombuffer(text, np.uint8)
    at = 4 + len(text)
    for value in values.values():
        data[at : at + value.nbytes] = value.reshape(-1).view(np.uint8)
        at += value.nbytes
    return data.view(np.int32)


def decode(words: np.ndarray) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays of a message.

    Raises:
        ValueError: It is none of ours.
    """
    data = words.view(np.uint8)
    length = int(data[:4].view(np.uint32)[0])
    header = json.loads(data[4 : 4 + length].tobytes())
    at, arrays = 4 + length, {}
    for name, kind, shape in header.pop("arrays"):
        dtype = np.dtype(kind)
        if dtype.kind not in _KINDS:
            raise ValueError(f"a message holds {dtype}, expected numbers")
        size = math.prod(shape) * dtype.itemsize
        arrays[name] = np.frombuffer(data[at : at + size].tobytes(), dtype).reshape(shape)
        at += size
    return header, arrays
