"""XLA's compiled programs on the disk, so that a run compiles its update once, not at each start.

TensorFlow reads and writes the files, and checks that a program is of the same computation. It does
not check that it was compiled for this machine, nor that the file is whole, and its update fails if
a file cannot be read or written. So each kind of machine has a folder of its own here; each file
has the checksum beside it that it had when it worked; and after a failure a folder is used no more.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, MutableMapping
from importlib.metadata import version
from pathlib import Path

from dreamer.errors import UserError
from dreamer.system.machine import machine, processor_flags

FLAGS = "TF_XLA_FLAGS"
MAX_BYTES = 2 * 1024**3  # of a folder; the oldest files go first
_OFF = "not used.txt"  # in a folder that is used no more: the reason
_DIRECTORY = "--tf_xla_persistent_cache_directory="


def keep_programs(environment: MutableMapping[str, str]) -> None:
    """Lets TensorFlow keep what XLA compiles in a folder of the user's cache.

    Call it before TensorFlow is imported, because it reads the variable once. It changes nothing if
    the user has set TF_XLA_FLAGS, or if the folder cannot be written or failed before.
    """
    if FLAGS in environment:
        return
    with contextlib.suppress(OSError):
        folder = cache_folder(environment)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (folder / _OFF).exists() or " " in str(folder):  # TensorFlow splits flags at spaces
            return
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"writable")
        _tidy(folder)
        environment[FLAGS] = f"{_DIRECTORY}{folder} --tf_xla_persistent_cache_read_only=false"


def cache_folder(environment: Mapping[str, str]) -> Path:
    """The folder for this kind of machine, version of TensorFlow, and flags of XLA."""
    home = environment.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    here = machine()
    drivers = Path("/proc/driver/nvidia/version")
    kind = [
        version("tensorflow"), here["processor"], processor_flags(), *here["gpus"],
        drivers.read_text(encoding="utf-8") if drivers.exists() else "",
        environment.get("XLA_FLAGS", ""), environment.get("CUDA_VISIBLE_DEVICES", ""),
    ]  # fmt: skip
    name = hashlib.sha256("\n".join(kind).encode()).hexdigest()[:16]
    return Path(home, "dreamer", "xla", name).absolute()


@contextlib.contextmanager
def first_update() -> Iterator[None]:
    """A context in which XLA compiles an update, or loads it from the disk, and runs it.

    Raises UserError instead of TensorFlow's error, which may be the cache's; the cache is used no
    more then. Memory that is not enough is another matter.
    """
    _, found, folder = os.environ.get(FLAGS, "").partition(_DIRECTORY)
    path = Path(folder.partition(" ")[0])
    if not found or path != cache_folder(os.environ):
        yield
        return
    import tensorflow as tf

    try:
        yield
    except tf.errors.ResourceExhaustedError:
        raise
    except tf.errors.OpError as error:
        reason = (error.message or "no reason given").strip().splitlines()[0]
        with contextlib.suppress(OSError):
            (path / _OFF).write_text(f"{reason}\n", encoding="utf-8")
        raise UserError(
            f"the first update with XLA failed: {reason}; perhaps because of what is kept of "
            f"earlier runs in {path}, which is used no more: start the command again, and if it "
            "fails again, with --jit off"
        ) from error
    with contextlib.suppress(OSError):
        for program in path.glob("*.pb"):
            if not _checksum_file(program).exists():
                _checksum_file(program).write_text(_checksum(program), encoding="ascii")


def _tidy(folder: Path) -> None:
    """Removes files that changed since they worked, that no run finished, or that are too many."""
    programs = sorted(folder.glob("*.pb"), key=lambda path: path.stat().st_mtime, reverse=True)
    kept = 0
    for program in programs:
        expected = _checksum_file(program)
        kept += program.stat().st_size
        sound = expected.exists() and expected.read_text(encoding="ascii") == _checksum(program)
        if kept > MAX_BYTES or not sound:
            program.unlink()
            expected.unlink(missing_ok=True)
    old = time.time() - 24 * 3600
    for unfinished in folder.glob("*.tmp"):
        if unfinished.stat().st_mtime < old:
            unfinished.unlink()


def _checksum_file(program: Path) -> Path:
    return program.with_suffix(".sha256")


def _checksum(program: Path) -> str:
    with open(program, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
