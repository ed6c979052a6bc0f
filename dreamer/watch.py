"""Shows on a page what a trained agent sees, imagines and values, and lets one step into its dream.

    python -m dreamer.watch --run runs/dmc_walker_walk/dreamer/0

The program prints a link for a browser on this machine. With --record it writes a video instead.
"""

from __future__ import annotations

import importlib.util
import webbrowser
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dreamer.analysis.trained_run import RUN, WHICH, find_checkpoint, load_run
from dreamer.config.command_line import CommandLine, Option, run_main
from dreamer.errors import UserError
from dreamer.io.files import check_writable_file
from dreamer.logs.video import check_video_name
from dreamer.runs.rundir import RunDir
from dreamer.system.streams import warn
from dreamer.training.build import MakeAgent
from dreamer.watching.recorder import write_recording
from dreamer.watching.session import Session
from dreamer.watching.side import DRAWN_SIZE, Side

NEEDED = ("starlette", "uvicorn", "websockets")
COMMAND_LINE = CommandLine(
    "python -m dreamer.watch",
    "Shows what a trained agent sees, imagines and values, as a page for a browser on this "
    "machine.",
    (
        RUN,
        Option("compare", "", "A second run of the same task, to show beside the first one."),
        Option("seed", 0, "Seed of the first episode's start.", min=0, max=2**32 - 1),
        Option("port", 0, "Port of the page; 0: a free one.", min=0, max=65535),
        Option("open", False, "Open the page in the browser."),
        Option("record", "", "File for a video of the page, ending in .gif or .mp4; there is no "
               "page then."),
        Option("seconds", 10, "Length of that video.", min=1, max=120),
        *WHICH,
    ),
    takes_config=False,
)  # fmt: skip


def main(
    argv: Sequence[str], make_agent: MakeAgent | None = None,
    command_line: CommandLine = COMMAND_LINE,
) -> int:  # fmt: skip
    """Reads the command line, and serves the page or writes the video; returns the exit status."""
    options = command_line.parse(argv).options
    record, port = options.pop("record"), options.pop("port")
    if record:
        check_video_name(record)
        check_writable_file(Path(record), "--record")
        warn(f"loading {options['run']} and its environment")
        seconds = options.pop("seconds")
        with ExitStack() as stack:
            write_recording(open_session(stack, options, make_agent), Path(record), seconds)
        print(f"wrote {record}")
        return 0
    check_installed()
    if options["open"]:
        check_browser()
    from dreamer.watching.server import Server, open_port

    with ExitStack() as stack:
        sock = stack.enter_context(open_port(port))
        warn(f"loading {options['run']} and its environment")
        server = Server(open_session(stack, options, make_agent), sock)
        print(f"open {server.link} in a browser on this machine; Ctrl-C ends the program",
              flush=True)  # fmt: skip
        if options["open"]:
            webbrowser.open(server.link)
        server.serve()
    return 0


def open_session(
    stack: ExitStack, options: dict[str, Any], make_agent: MakeAgent | None
) -> Session:
    """Loads the run, and the one to compare it with; `stack` closes their environments."""

    def open_side(run: str, which: str) -> Side:
        loaded = stack.enter_context(load_run(
            run, num_envs=1, drawn=True, drawn_size=DRAWN_SIZE, make_agent=make_agent,
            checkpoint=which, task=options["task"], python=options["python"],
        ))  # fmt: skip
        return Side(loaded, which)

    if options["compare"]:  # a mistake there is told before the first run is loaded
        find_checkpoint(RunDir.load(options["compare"])[0], "latest")
    sides = [open_side(options["run"], options["checkpoint"])]
    if options["compare"]:
        sides.append(open_side(options["compare"], "latest"))
    return Session(sides, options["seed"], lambda which: open_side(options["run"], which))


def check_installed() -> None:
    """Raises UserError if the packages that serve the page are missing."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UserError(
            f"the page needs {', '.join(missing)}: run pip install {' '.join(missing)}, or install "
            "this package with its extra watch, as in pip install -e '.[watch]' (--record needs "
            "none of them)"
        )


def check_browser() -> None:
    """Raises UserError if this machine has no browser to open."""
    try:
        webbrowser.get()
    except webbrowser.Error as error:
        raise UserError(
            "no browser was found on this machine: leave --open out, and open the link that is "
            "printed; from another machine, through ssh -L PORT:127.0.0.1:PORT"
        ) from error


if __name__ == "__main__":
    run_main(main)
