"""Before TensorFlow joins the processes of a run: all are there, and were started alike.

TensorFlow waits for missing ones without end, deaf to signals; here the wait has one, and can be
broken off. The chief listens on its address, whose port TensorFlow takes afterwards; each worker
sends one line of JSON and gets one.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from dreamer.distribution.cluster import Cluster
from dreamer.errors import UserError

WAIT = 600.0  # seconds, for processes that are not started yet
_LINE = 1_000_000  # bytes at most
_ANSWER = 10.0  # seconds that whoever has connected gets to speak

Facts = Mapping[str, Any]


def meet(cluster: Cluster, facts: Facts, say: Callable[[str], None], wait: float = WAIT) -> None:
    """Returns once all processes of the run are there.

    Args:
        cluster: Who they are.
        facts: What must be the same in all of them, as JSON can hold it.
        say: Takes messages for the user.
        wait: Seconds.
    Raises:
        UserError: Not all have come, or one was started otherwise; all of them raise it then.
    """
    facts = json.loads(json.dumps({**facts, "addresses": cluster.addresses}))
    deadline = time.monotonic() + wait
    if cluster.is_chief:
        _gather(cluster, facts, say, deadline)
    else:
        say(f"worker {cluster.index} of {cluster.addresses[0]}: waits for the chief")
        _report(cluster, facts, deadline)


def _gather(cluster: Cluster, facts: Facts, say: Callable[[str], None], deadline: float) -> None:
    host, _, port = cluster.addresses[0].rpartition(":")
    missing = set(range(1, len(cluster.addresses)))
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.create_server((host.strip("[]"), int(port))))
        except OSError as error:
            raise UserError(
                f"the chief cannot listen on {cluster.addresses[0]}, its address in TF_CONFIG: "
                f"{error.strerror or error}; give an address of this host, and a free port"
            ) from error
        say(f"chief at {cluster.addresses[0]}: waits for {len(missing)} worker(s)")
        connections: list[socket.socket] = []
        while missing:
            connection = _accept(listener, deadline)
            if connection is None:
                names = ", ".join(cluster.addresses[index] for index in sorted(missing))
                raise _refuse(connections, f"no word from {names}: start the same command there")
            stack.enter_context(connection)
            message = _read(connection)
            if message is None or message.get("index") not in missing:
                continue  # not one of ours, or it has called twice: the deadline holds
            if differing := _differing(facts, message.get("facts")):
                other = cluster.addresses[message["index"]]
                raise _refuse([*connections, connection], f"{other} was started with {differing}")
            missing.remove(message["index"])
            connections.append(connection)
        for connection in connections:
            _write(connection, {"go": True})
            connection.recv(1)  # its end closes first: so the port is free at once


def _report(cluster: Cluster, facts: Facts, deadline: float) -> None:
    host, _, port = cluster.addresses[0].rpartition(":")
    while True:
        try:
            connection = socket.create_connection((host.strip("[]"), int(port)), _ANSWER)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"no chief at {cluster.addresses[0]} ({error.strerror or error}): start the "
                    "same command there"
                ) from error
            time.sleep(0.5)
    with connection:
        _write(connection, {"index": cluster.index, "facts": facts})
        answer = _read(connection, max(deadline - time.monotonic(), _ANSWER))
    if answer is None:
        raise UserError(f"the chief at {cluster.addresses[0]} is gone: see what it says there")
    if "go" not in answer:
        raise UserError(f"the chief at {cluster.addresses[0]} has ended: {answer.get('refused')}")


def _accept(listener: socket.socket, deadline: float) -> socket.socket | None:
    """The next to connect, or None where none has in time."""
    listener.settimeout(max(deadline - time.monotonic(), 0.01))
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        return None
    connection.settimeout(_ANSWER)
    return connection


def _refuse(connections: list[socket.socket], why: str) -> UserError:
    """Tells those that have come; returns the error to raise."""
    for connection in connections:
        with contextlib.suppress(OSError):
            _write(connection, {"refused": why})
    return UserError(why)


def _differing(facts: Facts, other: Any) -> str:
    """What differs, with both values; nothing if all is alike."""
    if not isinstance(other, dict):
        return "another version of this program"
    keys = [key for key in {**facts, **other} if facts.get(key) != other.get(key)]
    named = [f"{key} {other.get(key)!r}, the chief with {facts.get(key)!r}" for key in keys[:3]]
    return "; ".join(named)


def _write(connection: socket.socket, message: Mapping[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _read(connection: socket.socket, wait: float = _ANSWER) -> dict[str, Any] | None:
    """One line of JSON; None from whoever sends something else, or nothing."""
    connection.settimeout(wait)
    try:
        with connection.makefile("rb") as file:
            message = json.loads(file.readline(_LINE))
    except (OSError, ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None
