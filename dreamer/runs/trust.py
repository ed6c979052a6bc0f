"""What a run from a stranger may do here: run nothing that its user has not named, lead nowhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dreamer.errors import UserError
from dreamer.system.streams import warn

if TYPE_CHECKING:
    from dreamer.config.config import Config


def trusted(config: Config, task: str = "", python: str = "") -> Config:
    """Returns the config of a loaded run with no program in it but those that the user has named.

    Args:
        config: What the run's config.yaml says.
        task: The run's task again, where that is code of someone's own.
        python: The interpreter for environments, in place of the run's `envs.python`; "" for the
            one that runs this.

    Raises:
        UserError: the run's task is code that the user has not named.
    """
    from dreamer.tasks import suite_of

    if ":" in config.task and config.task != task:
        kind = "module" if suite_of(config.task) == "gym" else "file or module"
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

    From elsewhere, a link could make us write to, or read from, any place of its maker's choice,
    and a pipe make us wait for ever. The directory itself may be reached through links.

    Raises:
        UserError: it holds a link, a pipe or the like.
    """
    for entry in sorted(os.scandir(run), key=lambda entry: entry.path):
        if entry.is_symlink():
            raise UserError(
                f"{entry.path} is a link, which a run's directory must not hold; put the content "
                "itself there, or set replay.directory to keep episodes elsewhere"
            )
        gone = not os.path.lexists(entry.path)  # of a run at work, since we looked
        if not (entry.is_file() or entry.is_dir() or gone):
            raise UserError(
                f"{entry.path} is neither a file nor a folder, and a run's directory must hold "
                "nothing else; move it away"
            )
