"""Updates of the agents that Dreamer is compared with, by the program of their own package.

It runs in a process of its own: nothing in this package imports them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dreamer.errors import UserError

PROGRAM = "baselines.benchmark"


def check_agents() -> None:
    """Raises a UserError where that package is missing, as in an installed wheel."""
    if find_spec("baselines") is None:
        raise UserError(
            "--parts agents needs the package baselines, which is in the checkout and not in the "
            "wheel: run the benchmark from the checkout, or leave agents out"
        )


def measure_agents(task: str, presets: Sequence[str], rounds: int) -> dict[str, Any]:
    """Seconds of an update of each agent that learns, Dreamer's first, all in turn.

    Args:
        task: Whose spaces.
        presets: Of those each agent has.
        rounds: To measure.
    Returns:
        By agent ``seconds`` of an update, ``records`` that it learns from and ``without``, the
        presets that do not fit it; or ``refused``.
    Raises:
        UserError: the program could not measure them; it has said why.
    """
    check_agents()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agents.json"
        words = ["--task", task, "--rounds", str(rounds), "--json", str(path)]
        words += ["--configs", *presets] if presets else []
        done = subprocess.run(
            [sys.executable, "-m", PROGRAM, *words], stdout=subprocess.DEVNULL, check=False
        )
        if done.returncode:
            raise UserError(
                f"python -m {PROGRAM} ended with status {done.returncode}; what it says above is "
                "why; without agents among --parts the rest can be measured"
            )
        return json.loads(path.read_text())["agents"]
