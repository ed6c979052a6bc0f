"""Shows the page of an agent that baselines.run has trained, with Dreamer's own program.

    python -m baselines.watch --run runs/dmc_walker_walk/planet/0

Of agents without a world model the page shows acting alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from baselines.registry import make_agent
from dreamer import watch
from dreamer.config.command_line import run_main


def main(argv: Sequence[str]) -> int:
    """Reads the command line, and serves the page; returns the exit status."""
    line = replace(watch.COMMAND_LINE, program="python -m baselines.watch")
    return watch.main(argv, make_agent, line)


if __name__ == "__main__":
    run_main(main)
