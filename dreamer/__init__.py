"""Dreamer: control from images by latent imagination (arXiv 1912.01603), in TensorFlow 2.

Public names load on first use, so that ``import dreamer`` stays fast and imports no TensorFlow:
environment processes, ``--help`` and the plots never pay for it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import re
import signal
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

# Workers of environments may have a newer Python of their own (envs.python).
if sys.platform != "linux" or not (
    (3, 11) <= sys.version_info[:2] < (3, 13) or "DREAMER_ENV_WORKER" in os.environ
):
    raise ImportError(
        "dreamer supports Linux with Python 3.11 or 3.12, but this is Python "
        f"{platform.python_version()} on {sys.platform}; on Windows use WSL 2, and on macOS a "
        "Linux container"
    )
if TYPE_CHECKING:
    from dreamer.agent.agent import Agent as Agent
    from dreamer.analysis.trained_run import load as load
    from dreamer.analysis.trained_run import load_run as load_run
    from dreamer.config.config import Config as Config
    from dreamer.config.config import load_config as load_config
    from dreamer.envs.processes.single import make_env as make_env
    from dreamer.errors import UserError as UserError
    from dreamer.run import train as train
    from dreamer.training.build import make_agent as make_agent
    from dreamer.training.callbacks import Callback as Callback

__version__ = "0.1.0"
_HOMES = {
    "Agent": "dreamer.agent.agent",
    "Callback": "dreamer.training.callbacks",
    "Config": "dreamer.config.config",
    "UserError": "dreamer.errors",
    "load": "dreamer.analysis.trained_run",
    "load_config": "dreamer.config.config",
    "load_run": "dreamer.analysis.trained_run",
    "make_agent": "dreamer.training.build",
    "make_env": "dreamer.envs.processes.single",
    "train": "dreamer.run",
}
__all__ = list(_HOMES)


def _begin_program() -> None:
    """Lets Ctrl-C end a program quietly while it loads, and says if its packages are missing.

    `dreamer.config.command_line.run_main` takes over. A process that only imports dreamer is left
    as it is.
    """
    called = " ".join(next((pair for pair in pairwise(sys.orig_argv) if pair[0] == "-m"), ()))
    installed = os.path.basename(next(iter(sys.argv), "")) == "dreamer"
    if not (installed or re.fullmatch(r"-m (dreamer|baselines)(\.\w+)?", called)):
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    needed = "numpy", "rich", "ruamel"
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        print(
            f"error: this Python, {sys.executable}, has no {', '.join(missing)}: run "
            "`source .venv/bin/activate` in the checkout first (`make setup` makes .venv)",
            file=sys.stderr,
        )
        sys.exit(2)


_begin_program()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dreamer' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
