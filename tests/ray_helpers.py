"""Sweeps at debug size, and what their processes do, for the tests that start a real Ray."""

import contextlib
import os
import re
from pathlib import Path

# States instead of images, and short imagination: seconds to trace.
SMALL = (
    *("--configs", "debug", "--envs.image", "false", "--envs.state", "true"),
    *("--eval.videos", "0", "--log.video_every", "0"),
    *("--behavior.horizon", "2", "--train.batch_length", "3", "--cpus", "1"),
)


def descendants(pid: int) -> list[int]:
    """Processes below `pid`, as far as they live."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(word) for word in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def listening(pids: list[int]) -> set[str]:
    """Addresses, as hexadecimal words of the kernel's tables, on which processes listen."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):  # closed meanwhile
                if match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(link)):
                    inodes.add(match[1])
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:  # LISTEN
                found.add(words[1].partition(":")[0])
    return found


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
"""127.0.0.1, the same written as an IPv6 address, and ::1."""
