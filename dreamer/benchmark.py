"""How fast this machine is: updates, environments, replay and memory, each against its limit.

    python -m dreamer.benchmark --json speed.json

Every figure is the median of several rounds, in which all that is to be compared is measured in
turn: updates with matrix products of the same precision, our environments with a literal loop over
dm_control. Whatever imports TensorFlow or OpenGL does so in a process of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from dreamer.config.command_line import CommandLine, Option, Parsed, run_main
from dreamer.config.config import Config, load_config
from dreamer.errors import UserError

LINE = CommandLine(
    "python -m dreamer.benchmark",
    "Measures how fast this machine updates, steps environments and samples, and the memory taken.",
    (
        Option("parts", "", "What to measure; default: all but overlap and agents (an update of "
               "each, by python -m baselines.benchmark). Shares of an update need update.",
               many=True, choices=("update", "env", "replay", "memory", "overlap", "agents")),
        Option("precisions", "", "Number formats of the updates; default: float32 and what suits "
               "the device.", many=True, choices=("float32", "bfloat16", "float16")),
        Option("updates", 5, "Rounds of updates to measure, after four to warm up.", low=1),
        Option("json", "", "File to write the figures to."),
        Option("quick", False, "Debug size, one round: shows that it works, not how fast."),
    ),
)  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Reads the command line, measures, prints a table, and writes the figures if asked to."""
    parsed = LINE.parse(argv)
    path = _writable(parsed.options["json"])
    config = _config(parsed)
    if "agents" in parsed.options["parts"]:
        _check_agents(parsed)
    from dreamer.benchmarks.bench import PARTS, QUICK, Bench, Scale
    from dreamer.benchmarks.report import print_report

    scale = QUICK if parsed.options["quick"] else Scale(parsed.options["updates"])
    precisions = list(dict.fromkeys(parsed.options["precisions"]))
    with Bench(config, scale, precisions) as bench:
        results = bench.run(parsed.options["parts"] or PARTS)
    print_report(results, scale.small)
    if path:
        from dreamer.io.files import atomic_write

        with atomic_write(path) as file:
            file.write(json.dumps(results, indent=2, allow_nan=False).encode() + b"\n")
    return 0


def _config(parsed: Parsed) -> Config:
    presets = [*parsed.presets, *(["debug"] if parsed.options["quick"] else [])]
    config = load_config(*presets, overrides=parsed.overrides)
    if "," in config.task:
        raise UserError(f"--task is {config.task!r}; the benchmark measures one task at a time")
    return config


def _check_agents(parsed: Parsed) -> None:
    from dreamer.benchmarks.agents import check_agents

    check_agents()
    if keys := sorted(set(parsed.overrides) - {"task", "logdir"}):
        raise UserError(
            f"--parts agents measures agents as their presets are, but --{keys[0]} is given; "
            "measure agents and other parts apart"
        )


def _writable(name: str) -> Path | None:
    """Refuses a file that could not be written, before minutes are spent on it."""
    if not name:
        return None
    path = Path(name)
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"--json cannot write {name}: expected a file in a folder that exists and "
                        "is writable")  # fmt: skip
    return path


if __name__ == "__main__":
    run_main(main)
