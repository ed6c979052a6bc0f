"""Messages between a pool and its workers: a JSON header, then raw array bytes. No pickle.

Layout: 4 bytes, the header's length (little-endian); the header; the arrays' bytes in C order,
one after the other, as the header's list `arrays` (name, dtype, shape) says.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

_LENGTH = struct.Struct("<I")


class DisconnectedError(ConnectionError):
    """The process at the other end is gone."""


def send(
    sock: socket.socket, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None
) -> None:
    """Sends one message; raises DisconnectedError where nobody is left to read it."""
    values = {name: np.asarray(value, order="C") for name, value in (arrays or {}).items()}
    described = [[name, value.dtype.str, value.shape] for name, value in values.items()]
    text = json.dumps({**header, "arrays": described}).encode()
    parts = [_LENGTH.pack(len(text)), text, *(value.tobytes() for value in values.values())]
    try:
        sock.sendall(b"".join(parts))
    except (BrokenPipeError, ConnectionResetError) as error:
        raise DisconnectedError(str(error)) from error


def receive(
    sock: socket.socket, timeout: float | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Waits for one message; returns its header and its arrays (writable, owned).

    Raises:
        TimeoutError: it was not there in full after `timeout` seconds (None: wait for ever).
        DisconnectedError: the other end closed.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    (length,) = _LENGTH.unpack(_read(sock, _LENGTH.size, deadline))
    header = json.loads(_read(sock, length, deadline))
    arrays = {}
    for name, dtype, shape in header.pop("arrays"):
        size = math.prod(shape) * np.dtype(dtype).itemsize
        arrays[name] = np.frombuffer(_read(sock, size, deadline), dtype).reshape(shape)
    return header, arrays


def _read(sock: socket.socket, size: int, deadline: float | None) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no complete message in time")
            sock.settimeout(left)
        try:
            count = sock.recv_into(view)
        except ConnectionResetError as error:
            raise DisconnectedError(str(error)) from error
        if count == 0:
            raise DisconnectedError("the connection was closed")
        view = view[count:]
    return data
