"""One self-contained page on a run or a whole benchmark, beside published results.

    python plots/report.py --indir runs/ --out report.html
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

if __name__ == "__main__":  # run as a script, from anywhere: make the checkout importable
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from rich.console import Console

from dreamer.errors import UserError
from dreamer.io.files import atomic_write
from plots.options import OneLineParser, add_choice, add_reading, count
from plots.plot import make_study
from plots.published import Published


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit status: 0, or 2 after a user's mistake."""
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    try:
        print(report(parse(arguments), console))
    except UserError as error:
        console.print(f"report.py: {error}")
        return 2
    except KeyboardInterrupt:
        console.print("report.py: interrupted; nothing was written.")
        return 130
    return 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Returns the options; a wrong command line ends with one message and status 2."""
    parser = OneLineParser(
        prog="plots/report.py",
        description="Writes one page on all runs below --indir: curves and scores beside "
                    "published ones, clips, configs, hours, and how to make each run again.")
    add = parser.add_argument
    add("--indir", type=Path, nargs="+", required=True, metavar="DIR",
        help="folders that hold runs, in any depth; or one run")
    add("--out", type=Path, required=True, metavar="FILE", help="the page, such as report.html")
    add("--title", default="Dreamer: report", help="default: Dreamer: report")
    add("--clips", type=count, default=20, metavar="MB",
        help="clips put into the page, at most so many megabytes (default: 20)")
    add("--resamples", type=count, default=2000, metavar="N",
        help="bootstrap resamples (default: 2000)")
    add_choice(parser.add_argument_group("what to show"))
    add_reading(parser.add_argument_group("how to read"))
    return parser.parse_args(arguments)


def report(options: argparse.Namespace, console: Console) -> Path:
    """Reads the runs and writes the page; returns its path.

    Raises:
        UserError: whatever is wrong with the folders, the names or the options.
    """
    try:
        from plots import sections
    except ImportError as error:
        raise UserError(f"{error}. Reports need matplotlib and scipy: pip install "
                        "'matplotlib>=3.8' 'scipy>=1.11' (or make setup).") from error
    if options.out.is_dir() or not options.out.absolute().parent.is_dir():
        raise UserError(f"--out cannot write {options.out}: expected a file in a folder that "
                        "exists.")
    published = Published.load(options.published_dir)
    study = make_study(options, published, console)
    for note in study.all_notes():
        console.print(f"note: {note}")
    with console.status("drawing"):
        made = time.strftime("%Y-%m-%d %H:%M")
        page = sections.whole_page(study, options.title, made, options.clips * 1_000_000,
                                   options.resamples)
    with atomic_write(options.out) as file:
        file.write(page.encode("utf-8", "replace"))
    return options.out


if __name__ == "__main__":
    sys.exit(main())
