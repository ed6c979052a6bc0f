"""The command `dreamer`: `dreamer run --task ...` is `python -m dreamer.run --task ...`."""

from __future__ import annotations

import importlib
import os
import sys
from typing import NoReturn

import dreamer
from dreamer.config.command_line import run_main
from dreamer.errors import UserError, suggest

PROGRAMS = {
    "run": "Trains Dreamer on a task.",
    "evaluate": "Runs new episodes with a trained agent.",
    "predict": "Predicts far ahead with a trained world model.",
    "watch": "Shows on a page what a trained agent sees, imagines and values.",
    "export": "Writes a folder with a trained agent, to share or to keep.",
    "sweep": "Trains on many tasks, seeds and settings.",
    "benchmark": "Measures how fast this machine is.",
    "gpu_check": "Says whether the NVIDIA card is ready to train, and what is missing.",
}


def main() -> NoReturn:
    """Runs the program that the first word names, with the other words."""
    # As with `python -m`, modules of the current folder can be named as tasks.
    sys.path.insert(0, os.getcwd())
    name, words = (sys.argv[1:2] or ["--help"])[0], sys.argv[2:]
    if name in PROGRAMS:
        sys.argv = [f"dreamer {name}", *words]
        run_main(importlib.import_module(f"dreamer.{name}").main)
    run_main(lambda _: describe(name))


def describe(word: str) -> None:
    """Prints the programs or the version; UserError if `word` asks for neither."""
    if word == "--version":
        print(f"dreamer {dreamer.__version__}")
    elif word in ("-h", "--help"):
        rows = [f"  {name:<10} {text}" for name, text in PROGRAMS.items()]
        print("usage: dreamer PROGRAM [--key value ...]", "", *rows, sep="\n")
        print("\ndreamer PROGRAM --help lists its options; dreamer --version says the version.")
    else:
        near = suggest(word, PROGRAMS) or f"; there are {', '.join(PROGRAMS)}"
        raise UserError(f"no program {word!r}{near}")


if __name__ == "__main__":
    main()
