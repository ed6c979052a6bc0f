"""Says in plain lines whether this machine's NVIDIA card is ready to train, or what is missing.

    python -m dreamer.gpu_check --json gpu.json

One line a check: the driver, CUDA's libraries, TensorFlow, XLA, OpenGL, a small training, and the
time of an update at full size. The exit status is 0 if all is well, 2 if something is to be mended.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dreamer.config.command_line import CommandLine, Option, run_main
from dreamer.io.files import check_writable_file, write_json
from dreamer.system.streams import say

CHECKS = ("driver", "libraries", "tensorflow", "xla", "rendering", "training", "speed")
LINE = CommandLine(
    "python -m dreamer.gpu_check",
    "Says whether the NVIDIA card of this machine is ready to train, and what is missing if not.",
    (
        Option("skip", "", "Checks to leave out; speed takes minutes.", many=True, choices=CHECKS),
        Option("updates", 20, "Updates at full size to measure, for each setting.", min=1),
        Option("json", "", "File to write all facts to, after each check."),
    ),
    takes_config=False,
)


def main(argv: Sequence[str]) -> int:
    """Reads the command line, runs the checks, and prints and writes each finding at once."""
    options = LINE.parse(argv).options
    if options["json"]:
        check_writable_file(Path(options["json"]), "--json")
    from dreamer.benchmarks.gpu_checks import GpuCheck  # late, so that --help is quick

    check = GpuCheck(options["skip"], options["updates"])
    for finding in check.run():
        for line in finding.lines():
            say(line)
        if options["json"]:
            write_json(options["json"], check.report())
    say(check.conclusion())
    return 0 if check.well else 2


if __name__ == "__main__":
    run_main(main)
