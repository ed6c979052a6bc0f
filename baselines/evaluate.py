"""Evaluates an agent that baselines.run has trained, with Dreamer's own program.

    python -m baselines.evaluate --run runs/dmc_walker_walk/d4pg/0 --episodes 10 --video out.gif
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from baselines.registry import make_agent
from dreamer import evaluate
from dreamer.config.command_line import run_main


def main(argv: Sequence[str]) -> int:
    """Reads the command line, evaluates, prints and writes; returns the exit status."""
    line = replace(evaluate.COMMAND_LINE, program="python -m baselines.evaluate")
    return evaluate.main(argv, make_agent, line)


if __name__ == "__main__":
    run_main(main)
