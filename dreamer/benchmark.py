"""Measures how fast this machine is: updates, environments, replay and memory.

    python -m dreamer.benchmark --json speed.json

Every figure is the median of several rounds. Each round measures everything that is compared, in
turn: updates with matrix products of the same precision, our environments with a plain loop over
dm_control. Whatever imports TensorFlow or OpenGL runs in a process of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dreamer.config.command_line import CommandLine, Option, run_main
from dreamer.config.config import load_config
from dreamer.errors import UserError
from dreamer.io.files import check_writable_file, write_json

LINE = CommandLine(
    "python -m dreamer.benchmark",
    "Measures how fast this machine updates, steps environments and samples, and the memory taken.",
    (
        Option("parts", "", "What to measure; default: all but overlap, run (on what the wall time "
               "of a run is spent, for prefill and 5,000 steps) and agents (an update of each "
               "agent). Figures relative to an update need update.", many=True,
               choices=("update", "env", "replay", "memory", "overlap", "run", "agents")),
        Option("precisions", "", "Number formats of the updates; default: float32 and the one "
               "that suits the device.", many=True, choices=("float32", "bfloat16", "float16")),
        Option("updates", 5, "Rounds of updates to measure, after four to warm up.", min=1),
        Option("json", "", "File to write the figures to."),
        Option("quick", False, "Debug size, one round: only shows that the benchmark works."),
    ),
)  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Reads the command line, measures, prints a table, and writes the figures to --json."""
    parsed = LINE.parse(argv)
    options = parsed.options
    presets = [*parsed.presets, *(["debug"] if options["quick"] else [])]
    config = load_config(*presets, overrides=parsed.overrides)
    if "," in config.task:
        raise UserError(f"--task is {config.task!r}; the benchmark measures one task at a time")
    if options["json"]:
        check_writable_file(Path(options["json"]), "--json")
    if "agents" in options["parts"] and (keys := set(parsed.overrides) - {"task", "logdir"}):
        raise UserError(
            f"--parts agents measures the agents with their presets, but --{min(keys)} is given; "
            "measure agents and other parts separately"
        )
    from dreamer.benchmarks.bench import DEFAULT_PARTS, QUICK, Bench, Scale
    from dreamer.benchmarks.table import print_report

    scale = QUICK if options["quick"] else Scale(options["updates"])
    with Bench(config, scale, list(dict.fromkeys(options["precisions"]))) as bench:
        results = bench.run(options["parts"] or DEFAULT_PARTS)
    print_report(results, scale.small)
    if options["json"]:
        write_json(options["json"], results)
    return 0


if __name__ == "__main__":
    run_main(main)
