"""Limits for a stranger's run: it starts only code that the user names, and holds no links."""

from __future__ import annotations

import os
from pathlib import Path

from dreamer.config.config import Config
from dreamer.errors import UserError
from dreamer.system.streams import warn
from dreamer.tasks import suite_of


def trusted(config: Config, task: str = "", python: str = "") -> Config:
    """Returns the config of a loaded run, which names no program that the user has not named.

    Args:
        config: The config of the run's config.yaml.
        task: The run's task, repeated by the user if it is someone's own code.
        python: The interpreter for environments, instead of the run's `envs.python`; "": the
            interpreter of this process.

    Raises:
        UserError: The run's task is code that the user has not named.
    """
    if ":" in config.task and config.task != task:
        kind = "file or module" if suite_of(config.task) == "custom" else "module"
        raise UserError(
            f"the run's task {config.task!r} runs code of its own, from a {kind} that its "
            f"config.yaml names; if you trust that, say so: --task {config.task}"
        )
    if config.envs.python not in ("", python):
        warn(
            f"warning: the run's own Python for environments, {config.envs.python!r}, is not "
            f"used: add --python {config.envs.python} if you trust that"
        )
    return config.replace({"envs.python": python})


def refuse_irregular(run: Path) -> None:
    """Refuses a run's directory that holds anything but files and folders.

    In a stranger's run, a link could make us read or write a file elsewhere, and a pipe could make
    us wait forever. The directory itself may be reached through links.

    Raises:
        UserError: The directory holds a link, a pipe or another special file.
    """
    for entry in sorted(os.scandir(run), key=lambda entry: entry.path):
        if entry.is_symlink():
            raise UserError(
                f"{entry.path} is a link, which a run's directory must not hold; put the content "
                "itself there, or set replay.directory to keep episodes elsewhere"
            )
        gone = not os.path.lexists(entry.path)  # removed meanwhile, by a live run
        if not (entry.is_file() or entry.is_dir() or gone):
            raise UserError(
                f"{entry.path} is neither a file nor a folder, and a run's directory must hold "
                "nothing else; move it away"
            )
