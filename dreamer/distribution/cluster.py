"""The hosts of one run, as the environment variable TF_CONFIG names them to each of its processes.

    TF_CONFIG='{"cluster": {"worker": ["one:2222", "two:2222"]}, "task": {"type": "worker", "index": 0}}'

It is TensorFlow's own way to say this. Chief is the task of type chief if there is one, else the
first worker. Not set, empty or without a cluster: one process.
"""  # noqa: E501

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dreamer.errors import UserError

VARIABLE = "TF_CONFIG"
_EXAMPLE = (
    '{"cluster": {"worker": ["one:2222", "two:2222"]}, "task": {"type": "worker", "index": 0}}'
)


@dataclass(frozen=True)
class Cluster:
    """The processes that train one run, one a host.

    Attributes:
        addresses: host:port of each, the chief's first.
        index: Which of them this process is.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this process collects, evaluates and writes; the others only train."""
        return self.index == 0


def read_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """The cluster that the environment names; None for a process of its own.

    Raises:
        UserError: TF_CONFIG is not what TensorFlow takes, or names no second process.
    """
    text = environment.get(VARIABLE, "").strip()
    if not text:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise _wrong("is not a map")
    if not value.get("cluster"):
        return None
    jobs, task = value["cluster"], value.get("task")
    every = _addresses(jobs)
    if len(every) == 1:
        raise _wrong(f"names only one process, {every[0]}")
    return Cluster(tuple(every), _index(jobs, task))


def _addresses(jobs: Any) -> list[str]:
    """All of them, the chief's first."""
    if not isinstance(jobs, dict) or not all(isinstance(x, list) for x in jobs.values()):
        raise _wrong("has a cluster that is not a map of lists")
    other = sorted(set(jobs) - {"chief", "worker"})
    if other:
        raise _wrong(f"has a job {other[0]!r}; expected chief and worker alone")
    chief = jobs.get("chief", [])
    if len(chief) > 1:
        raise _wrong(f"names {len(chief)} chiefs; expected one")
    every = [*chief, *jobs.get("worker", [])]
    for address in every:
        host, colon, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
        if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
            raise _wrong(f"has the address {address!r}; expected host:port")
    if len(set(every)) < len(every):
        raise _wrong("names an address twice")
    return every


def _index(jobs: Mapping[str, list], task: Any) -> int:
    kind = task.get("type") if isinstance(task, dict) else None
    if not isinstance(kind, str) or kind not in jobs:
        raise _wrong(f"has the task {task!r}, whose type is none of {', '.join(jobs)}")
    index = task.get("index", 0)
    if not isinstance(index, int) or not 0 <= index < len(jobs[kind]):
        raise _wrong(f"has the task {task!r}; expected an index from 0 to {len(jobs[kind]) - 1}")
    return index + (len(jobs.get("chief", [])) if kind == "worker" else 0)


def _wrong(what: str) -> UserError:
    return UserError(
        f"{VARIABLE} {what}; expected something like {_EXAMPLE}, with an index of its own on each "
        f"host, or unset {VARIABLE} to train in one process"
    )
