"""The command line of plot.py, checked before anything is read."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import NoReturn

from plots.names import SUITES
from plots.published import DIRECTORY

FIGURES = ("curves", "bars", "aggregates", "profile", "improvement", "ablation", "tables")
FORMATS = ("png", "pdf", "svg")


class OneLineParser(argparse.ArgumentParser):
    """Ends a wrong command line with one line, without the usage, and status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{Path(self.prog).name}: error: {message} (see --help)\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Returns the options; a wrong command line ends with one message and status 2."""
    parser = OneLineParser(
        prog="plots/plot.py",
        description="Draws learning curves, final scores and aggregates of all runs below "
                    "--indir beside published results, and writes their tables.")
    add = parser.add_argument
    add("--indir", type=Path, nargs="+", required=True, metavar="DIR",
        help="folders that hold runs, in any depth")
    add("--outdir", type=Path, required=True, metavar="DIR", help="where figures and tables go")
    what = parser.add_argument_group("what to show")
    add_choice(what)
    what.add_argument("--figures", nargs="+", choices=FIGURES, default=list(FIGURES),
                      help="default: all")
    what.add_argument("--ablation", nargs="+", metavar="FIG", default=[],
                      help="figures of the Dreamer paper to redraw even if no run is of their "
                           "variants: fig4, fig7, fig8")
    how = parser.add_argument_group("how to read and compare")
    add_reading(how)
    _add_comparison(how)
    return parser.parse_args(arguments)


def add_choice(what: argparse._ArgumentGroup) -> None:
    """Adds the options that choose tasks, methods and published methods."""
    tasks = what.add_mutually_exclusive_group()
    tasks.add_argument("--tasks", nargs="+", metavar="TASK", help="these tasks, in this order")
    tasks.add_argument("--suite", metavar="NAME",
                       help=f"all tasks of a suite, with or without runs: {', '.join(SUITES)}")
    what.add_argument("--methods", nargs="+", metavar="METHOD", help="these methods of the runs")
    what.add_argument("--published", nargs="+", metavar="METHOD",
                      help="published methods to show beside them, or none (default: those of "
                           "the suite's papers)")
    what.add_argument("--published-dir", type=Path, default=DIRECTORY, metavar="DIR",
                      help="folder of published CSV files (default: baselines/published)")


def add_reading(group: argparse._ArgumentGroup) -> None:
    """Adds the options on how runs are read and their scores taken."""
    add = group.add_argument
    add("--metric", default="eval/return", help="scalar to plot (default: eval/return)")
    add("--layout", metavar="PATTERN",
        help="how run folders are named, such as '{method}/{task}/{seed}' (default: found out)")
    add("--bin", type=_frames, metavar="FRAMES", help="bin width (default: about 50 bins)")
    add("--spread", choices=("std", "ci", "range"), default="std",
        help="bands and whiskers: standard deviation, 95%% bootstrap interval of the mean, or "
             "range (default: std)")
    add("--at", type=_frames, metavar="FRAMES",
        help="compare scores at this many frames (default: where each run ends)")
    add("--seeds", type=count, metavar="N",
        help="seeds each method should have (default: its own most)")


def _add_comparison(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--end", type=_frames, metavar="FRAMES", help="last frame on the curves' axis")
    add("--normalize", default="auto", metavar="SCALE",
        help="for aggregates: auto, none, a published method, or a CSV file with the columns "
             "task, low, high (default: auto)")
    add("--common-tasks", action="store_true",
        help="aggregate over those tasks alone on which every method has a score")
    add("--resamples", type=count, default=2000, metavar="N",
        help="bootstrap resamples (default: 2000)")
    add("--formats", nargs="+", choices=FORMATS, default=["png", "pdf"],
        help="default: png pdf")


def _frames(text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1 <= value <= 1e15 or value != int(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of frames, such as 1e6")
    return int(value)


def count(text: str) -> int:
    """Reads a whole number from 1 to a million; argparse says what is wrong with others."""
    if not (text.isdecimal() and 1 <= int(text) <= 1_000_000):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 1000000")
    return int(text)
