"""Messages between processes: a JSON header, then the raw bytes of arrays. No pickle.

Layout: the header's length (4 bytes, little-endian); the header; the arrays' bytes in C order, one
array after the other, as listed in the header under `arrays` (name, dtype, shape).
"""

from __future__ import annotations

import functools
import json
import math
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

OnWait = Callable[[float], None]
Message = tuple[dict[str, Any], dict[str, np.ndarray]]  # header, arrays

_LENGTH = struct.Struct("<I")


def encode(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns the bytes of one message."""
    values = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    described = [[name, value.dtype.str, value.shape] for name, value in values.items()]
    text = json.dumps({**header, "arrays": described}).encode()
    parts = [_LENGTH.pack(len(text)), text, *(value.tobytes() for value in values.values())]
    return b"".join(parts)


def send(
    sock: socket.socket, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None
) -> None:
    """Sends one message; raises ConnectionError if the other process has ended."""
    sock.sendall(encode(header, arrays or {}))


def receive(
    sock: socket.socket, timeout: float | None = None, on_wait: OnWait | None = None
) -> Message:
    """Waits for one message; returns its header and its arrays (writable, owned).

    Args:
        sock: The socket.
        timeout: Seconds to wait for each part; None: no limit. Time in which this process itself
            was stopped (Ctrl-Z, a paused machine) counts as one second at most.
        on_wait: Called every second of the wait, with the seconds so far; may raise to end it.

    Raises:
        TimeoutError: Nothing came within the timeout.
        ConnectionError: The other process has ended or closed its socket.
    """
    read = functools.partial(_read, sock, timeout, on_wait)
    (length,) = _LENGTH.unpack(read(_LENGTH.size))
    header = json.loads(read(length))
    arrays = {}
    for name, dtype, shape in header.pop("arrays"):
        size = math.prod(shape) * np.dtype(dtype).itemsize
        arrays[name] = np.frombuffer(read(size), dtype).reshape(shape)
    return header, arrays


def _read(
    sock: socket.socket, timeout: float | None, on_wait: OnWait | None, size: int
) -> bytearray:
    data, waited = bytearray(size), 0.0
    view = memoryview(data)
    while view:
        # Count waits of a second; the clock would also run while this process is stopped.
        sock.settimeout(None if timeout is None else min(1.0, timeout - waited))
        try:
            count = sock.recv_into(view)
        except TimeoutError:
            waited += 1.0
            if on_wait is not None:
                on_wait(waited)
            if timeout is not None and waited >= timeout:
                raise TimeoutError(f"nothing came for {timeout:g} s") from None
            continue
        if count == 0:
            raise ConnectionError("the connection was closed")
        view, waited = view[count:], 0.0
    return data
