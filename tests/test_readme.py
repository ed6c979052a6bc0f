"""The README's commands are ones that our programs understand, and its first ones run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from whole_runs import finish, metrics_of, start

from baselines import registry
from dreamer import benchmark, evaluate, predict, sweep
from dreamer.config.command_line import parse_args
from dreamer.sweeps.plan import plan
from plots import options, report

README = Path(__file__).resolve().parent.parent / "README.md"
# What makes a training of minutes one of seconds, of networks and batches of the preset's size.
FEW = {
    "--steps": "1400", "--train.prefill": "1000", "--train.every": "200", "--train.updates": "2",
    "--train.pretrain": "1", "--envs.time_limit": "400", "--eval.episodes": "1",
    "--eval.amount": "1", "--log.video_every": "0",
}  # fmt: skip


def commands() -> list[list[str]]:
    """The words of each call of one of our programs, without variables set before it."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = (shlex.split(line, comments=True) for line in lines)
    return [words[words.index("python") + 1 :] for words in found if "python" in words]


def _train(words: list[str]) -> object:
    return parse_args(words, "run", "")


def _train_other(words: list[str]) -> object:
    agent, rest = registry.take_agent(words)
    return parse_args(rest, "run", "", agent)


PROGRAMS: dict[str, Callable[[list[str]], object]] = {
    "-m dreamer.run": _train,
    "-m dreamer.evaluate": evaluate.COMMAND_LINE.parse,
    "-m dreamer.predict": predict.COMMAND_LINE.parse,
    "-m dreamer.benchmark": benchmark.LINE.parse,
    "-m dreamer.sweep": lambda words: plan(sweep.LINE.parse(words)),
    "-m baselines.run": _train_other,
    "-m baselines.evaluate": evaluate.COMMAND_LINE.parse,
    "plots/plot.py": options.parse,
    "plots/report.py": report.parse,
}


@pytest.mark.parametrize("words", [pytest.param(w, id=" ".join(w)) for w in commands()])
def test_every_command_is_understood(words: list[str]):
    program = " ".join(words[:2]) if words[0] == "-m" else words[0]
    assert program in PROGRAMS, f"the README calls {program}: say here how it is read"
    PROGRAMS[program](words[len(program.split()) :])


def test_every_program_is_in_the_readme():
    shown = {" ".join(words[:2]) if words[0] == "-m" else words[0] for words in commands()}
    assert shown == set(PROGRAMS)


def shortened(logdir: Path, *presets: str) -> list[str]:
    """The README's main command with that logdir, these presets and few steps."""
    main = next(words[2:] for words in commands() if words[:2] == ["-m", "dreamer.run"])
    main[main.index("--logdir") + 1] = str(logdir)
    few = [word for pair in FEW.items() for word in pair]
    return [*main, *(("--configs", *presets) if presets else ()), *few]


def test_the_main_command_at_the_size_for_cpus(tmp_path: Path):
    status, _, errors = finish(start("dreamer.run", *shortened(tmp_path, "small")))
    assert status == 0, errors
    last = metrics_of(tmp_path / "dmc_walker_walk" / "dreamer_small" / "0")[-1]
    assert (last["step"], last["updates"]) == (1400, 5)
    assert 0 <= last["eval/return"] <= 400


@pytest.mark.slow
def test_what_the_readme_does_with_a_run(tmp_path: Path):
    """States instead of pixels, for the time; then each program that reads a run."""
    status, _, errors = finish(start("dreamer.run", *shortened(tmp_path, "dmc_proprio")))
    assert status == 0, errors
    run = tmp_path / "dmc_walker_walk" / "dreamer_dmc_proprio" / "0"
    page, figures = tmp_path / "report.html", tmp_path / "out"
    for program, *words in (
        ("dreamer.evaluate", "--run", run, "--episodes", "1"),
        ("plots.plot", "--indir", tmp_path, "--outdir", figures),
        ("plots.report", "--indir", tmp_path, "--out", page),
    ):
        status, _, errors = finish(start(program, *words))
        assert status == 0, errors
    assert page.stat().st_size and list(figures.glob("*.png"))
